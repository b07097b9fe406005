import { closeSync, createReadStream, fsyncSync, openSync, writeSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { diskError, errnoOf, onDisk } from './disk.js';

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
  /** These three since the row before. */
  tokens_per_second: number;
  samples_per_second: number;
  /** Share of the time spent waiting for data, 0 to 1. */
  data_wait: number;
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
  time: number;
}

/** Where a metrics file stood when it was opened. */
export interface History {
  /** Step of the last evaluation row, 0 for none. */
  evaluated: number;
}

/** Appends rows to `metrics.jsonl`. A row is in the kernel's hands when `append` returns, so that SIGKILL loses none. */
export class MetricsFile {
  readonly #path: string;
  readonly #descriptor: number;
  readonly history: History;

  private constructor(path: string, descriptor: number, history: History) {
    this.#path = path;
    this.#descriptor = descriptor;
    this.history = history;
  }

  /** Opens the file cut back to `step`, from where the run goes on: one history, without holes or repeats. */
  static async open(path: string, step: number): Promise<MetricsFile> {
    return onDisk(path, async () => {
      const history = await cutBack(path, step);
      return new MetricsFile(path, openSync(path, 'a'), history);
    });
  }

  append(row: StepRow | EvalRow): void {
    try {
      writeSync(this.#descriptor, `${JSON.stringify(row)}\n`);
    } catch (cause) {
      throw diskError(cause, this.#path);
    }
  }

  /** Waits until the rows are on the device. */
  sync(): void {
    try {
      fsyncSync(this.#descriptor);
    } catch (cause) {
      throw diskError(cause, this.#path);
    }
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

/** Cuts the file before its first row that is damaged or later than `step`; rows are in order of `step`. */
async function cutBack(path: string, step: number): Promise<History> {
  let keep = 0;
  let evaluated = 0;
  try {
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
      const row = parseRow(line);
      if (row === null || row.step > step) break;
      if ('eval_loss' in row) evaluated = row.step;
      keep += Buffer.byteLength(line) + 1;
    }
    await truncate(path, keep);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
  }
  return { evaluated };
}

function parseRow(line: string): { step: number } | null {
  try {
    const row = JSON.parse(line) as { step?: unknown } | null;
    return typeof row?.step === 'number' ? { ...row, step: row.step } : null;
  } catch {
    return null;
  }
}
