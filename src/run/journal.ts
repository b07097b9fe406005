import { appendFileSync } from 'node:fs';
import { CandlewickError } from '../errors.js';
import type { ResolvedConfig } from '../config/index.js';
import { onDisk } from './disk.js';
import type { SetupEvent, TrainerEvent } from './events.js';
import { LineFile } from './lines.js';
import { Progress } from './progress.js';
import { withoutSecrets } from './secrets.js';

/** Between two lines of train.log about steps; every step has its row in metrics.jsonl. */
const STEP_LINE_MS = 10_000;

/** `events.jsonl` and `train.log`: what happened in a run, for programs and for people. */
export class Journal {
  readonly #events: LineFile;
  readonly #people: Progress;
  readonly #log: string;
  #step: number;
  #lastStepLine = 0;
  /** When what is being said happened; null: now. */
  #time: Date | null = null;
  #isOpen = true;

  private constructor(events: LineFile, log: string, step: number) {
    this.#events = events;
    this.#log = log;
    this.#step = step;
    this.#people = new Progress({ write: (text) => this.#write(text) });
  }

  /**
   * Opens both. The events are cut back to `step`, from where the run goes on, or to nothing where it begins (null); the
   * log keeps everything that was ever said.
   */
  static async open(events: string, log: string, step: number | null): Promise<Journal> {
    const file = await LineFile.open(
      events,
      (row) => step !== null && typeof row['step'] === 'number' && row['step'] <= step,
    );
    await onDisk(log, async () => appendFileSync(log, ''));
    return new Journal(file, log, step ?? 0);
  }

  /** Something before the first step, which happened at `time`. */
  setup(event: SetupEvent, time = new Date()): void {
    if (event.type !== 'tokenizer') this.#record(event, time);
    this.#time = time;
    this.#people.setup(event);
    this.#time = null;
  }

  /** Something while the run goes on. Steps have a file of their own. */
  training(event: TrainerEvent, config: ResolvedConfig): void {
    if ('step' in event) this.#step = event.step;
    if (event.type !== 'step') {
      this.#record(event);
      this.#people.training(event, config);
    } else if (
      Date.now() - this.#lastStepLine >= STEP_LINE_MS &&
      event.step % config.logging.every_steps === 0
    ) {
      this.#lastStepLine = Date.now();
      this.#people.training(event, config);
    }
  }

  /** What the run failed with. */
  failed(cause: unknown): void {
    const error =
      cause instanceof CandlewickError
        ? { code: cause.code, message: cause.message, hint: cause.hint }
        : {
            code: 'INTERNAL',
            message: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause),
          };
    try {
      this.#record({ type: 'error', ...error });
    } catch {
      // What it failed with is what is reported, and that may be this very disk.
    }
    this.say(`error[${error.code}]: ${error.message}`);
  }

  /** A line for people. */
  say(text: string): void {
    this.#write(`${text}\n`);
  }

  /** What is told afterwards, while the rest is closed, is not written. */
  close(): void {
    this.#isOpen = false;
    this.#events.close();
  }

  #record(event: { type: string }, time = new Date()): void {
    if (!this.#isOpen) return;
    const { type, ...rest } = event;
    const row = { time: time.getTime() / 1000, type, step: this.#step, ...rest };
    this.#events.append(JSON.parse(withoutSecrets(JSON.stringify(row))) as object);
  }

  #write(text: string): void {
    if (!this.#isOpen) return;
    const time = (this.#time ?? new Date()).toISOString();
    const lines = withoutSecrets(text).trimEnd().split('\n');
    try {
      appendFileSync(this.#log, lines.map((line) => `${time} ${line}\n`).join(''));
    } catch {
      // A disk too full for a line of the log ends nothing: the next checkpoint will say so.
    }
  }
}
