import { LineFile } from './lines.js';
import { LossWindow } from './spikes.js';
import type { EventFile } from './tensorboard.js';

/** What one source of several has given so far. */
export interface SourceShare {
  /** Part of all targets so far, 0 to 1. */
  share: number;
  /** Pass over this source, from 1. */
  epoch: number;
}

/** A row of `metrics.jsonl` for a step. */
export interface StepRow {
  /** Completed updates, from 1. */
  step: number;
  /** Mean nats a target of this step. */
  loss: number;
  /** Norm of the gradients before clipping. */
  grad_norm: number;
  lr: number;
  /** Targets so far. */
  tokens: number;
  /** End-of-text targets so far. */
  documents: number;
  /** From 1; with several sources, the earliest of those that have not dropped out. */
  epoch: number;
  /** The sources in their order, where there are several. */
  mix?: SourceShare[];
  /** These since the row before. */
  tokens_per_second: number;
  /** Share of the GPU's peak, by the FLOPs of `candlewick estimate`; null for an unknown GPU, absent on the CPU. */
  mfu?: number | null;
  samples_per_second: number;
  /** Share of the time spent waiting for data, 0 to 1. */
  data_wait: number;
  /** Updates left out since the row before, as loss or gradient was not finite; absent where there were none. */
  skipped_steps?: number;
  /**
   * How unusual the loss is: its distance from the mean of up to 100 rows before, in their standard deviations; absent
   * in the first 20 rows.
   */
  loss_z?: number;
  /** Resident bytes of this process, at the end of the step; absent in rows of before there was this. */
  memory?: number;
  /** Rolling hash of the targets, 16 hex digits. */
  stream_hash: string;
  /** Unix seconds. */
  time: number;
}

/** A row of `metrics.jsonl` for an evaluation. */
export interface EvalRow {
  step: number;
  /** Mean nats a target of the held-out documents. */
  eval_loss: number;
  bits_per_byte: number;
  /**
   * `eval_loss` where each token is a sequence of its own, so that nothing before it is known; of the evaluation that
   * ends a run, else absent.
   */
  one_token_loss?: number;
  time: number;
}

/** `metrics.jsonl`: one history, without holes or repeats. */
export class MetricsFile {
  readonly #file: LineFile;
  /** Loss of each step that was evaluated. */
  readonly #evaluations: Map<number, number>;
  #events: EventFile | null = null;
  /** Losses of the last rows. */
  readonly losses: LossWindow;

  private constructor(file: LineFile, evaluations: Map<number, number>, losses: LossWindow) {
    this.#file = file;
    this.#evaluations = evaluations;
    this.losses = losses;
  }

  /** Opens the file cut back to `step`, from where the run goes on. */
  static async open(path: string, step: number): Promise<MetricsFile> {
    const evaluations = new Map<number, number>();
    const losses = new LossWindow();
    const file = await LineFile.open(path, (row) => {
      if (typeof row['step'] !== 'number' || row['step'] > step) return false;
      if (typeof row['eval_loss'] === 'number') evaluations.set(row['step'], row['eval_loss']);
      else if (typeof row['loss'] === 'number') losses.add(row['loss']);
      return true;
    });
    return new MetricsFile(file, evaluations, losses);
  }

  /** Step of the last evaluation, 0 for none. */
  get evaluated(): number {
    return Math.max(0, ...this.#evaluations.keys());
  }

  /** Of these steps the one with the lowest evaluation loss, the latest of equals; null where none was evaluated. */
  best(steps: readonly number[]): number | null {
    let best: { step: number; loss: number } | null = null;
    for (const step of [...steps].sort((a, b) => a - b)) {
      const loss = this.#evaluations.get(step);
      if (loss !== undefined && (best === null || loss <= best.loss)) best = { step, loss };
    }
    return best?.step ?? null;
  }

  /** Rows go into `events` as well, from now on; it is closed with this file. */
  mirror(events: EventFile): void {
    this.#events = events;
  }

  append(row: StepRow | EvalRow): void {
    if ('eval_loss' in row) this.#evaluations.set(row.step, row.eval_loss);
    this.#file.append(row);
    this.#events?.append(row);
  }

  /** Waits until the rows are on the device. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  close(): void {
    this.#file.close();
    this.#events?.close();
  }
}
