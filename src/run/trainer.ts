import type { LoadedConfig, ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding, NativeTokenizer } from '../native/binding.js';
import { Builder } from './builder.js';
import type { SetupEvent, TrainerEvent } from './events.js';
import type { Journal } from './journal.js';
import type { TrainingLoop } from './loop.js';
import { defaultParts } from './parts.js';
import type { OpenCorpus, OpenSource, TrainableCorpus } from './source.js';

/** What `Trainer.create` is told; what is left out, the configuration says. */
export interface TrainerOptions {
  /** A YAML file, its values, or what `loadConfig` made of it. */
  config: string | Record<string, unknown> | LoadedConfig;
  /** Used instead of the tokenizer that the configuration names. */
  tokenizer?: { readonly native: NativeTokenizer };
  /** Used instead of the dataset that the configuration names. It stays open when the trainer is closed. */
  corpus?: TrainableCorpus;
  /** Run directory. */
  output?: string;
  /** `auto`: go on from the newest checkpoint; `never`: refuse a directory that has some; or a directory to go on from. */
  resume?: string;
  /** Keeps the weights, the optimizer and the step of what is gone on from, and starts the data over; default: false. */
  resetStream?: boolean;
  /** Stops the run as `stop()` does; during `create`, rejects with ABORTED. */
  signal?: AbortSignal;
  /** Hears what happens before the first step. */
  onSetup?: (event: SetupEvent) => void;
}

/** What the trainer is built upon; a test puts others in place. */
export interface TrainerParts {
  binding: NativeBinding;
  openCorpus: OpenCorpus;
}

/** What a run decided before its first step. */
export interface RunPlan {
  config: ResolvedConfig;
  output: string;
  /** What is read: one source, or those of a mixture. */
  sources: readonly Pick<OpenSource, 'ready' | 'weight' | 'on_exhausted'>[];
  tokenizer: { size: number; path: string; trained: boolean };
  parameters: { embedding: number; blocks: number; head: number; total: number };
  tokensPerStep: number;
  /** What is held out of the training data. */
  heldOut: { documents: number; bytes: number } | null;
  /** Other data that the run is evaluated on. */
  evaluatedOn: { dataset: string; split: string; documents: number; bytes: number } | null;
  /** Checkpoint that the run goes on from, and whether its data start over. */
  resumedFrom: { path: string; step: number; reset: boolean } | null;
}

/** Undoes what was opened, last first. */
export class Opened {
  readonly #actions: (() => unknown)[] = [];

  add(action: () => unknown): void {
    this.#actions.push(action);
  }

  async close(): Promise<void> {
    for (const action of this.#actions.splice(0).reverse()) {
      try {
        await action();
      } catch {
        // Closing goes on: what fails here has failed before, and was reported then.
      }
    }
  }
}

/** A training run: `create` opens everything, `run` trains and tells, `close` gives everything back. */
export class Trainer {
  /** What was decided. */
  readonly plan: RunPlan;
  readonly #loop: TrainingLoop;
  readonly #journal: Journal;
  readonly #opened: Opened;

  private constructor(plan: RunPlan, loop: TrainingLoop, journal: Journal, opened: Opened) {
    this.plan = plan;
    this.#loop = loop;
    this.#journal = journal;
    this.#opened = opened;
  }

  static async create(options: TrainerOptions, parts?: TrainerParts): Promise<Trainer> {
    const opened = new Opened();
    const builder = new Builder(options, parts ?? defaultParts(), opened);
    try {
      const { plan, loop, journal } = await builder.build();
      return new Trainer(plan, loop, journal, opened);
    } catch (cause) {
      await opened.close();
      if (builder.isStopped) {
        throw errorFor(
          'ABORTED',
          'stopped before the first step',
          'run the same command to begin again',
          cause,
        );
      }
      throw cause;
    }
  }

  /** Trains until a limit, the end of the data, or a stop. To be iterated once. */
  async *run(): AsyncGenerator<TrainerEvent, void, undefined> {
    try {
      for await (const event of this.#loop.run()) {
        this.#journal.training(event, this.plan.config);
        yield event;
      }
    } catch (cause) {
      this.#journal.failed(cause);
      throw cause;
    }
  }

  /** Writes a line for people into the run's `train.log`. */
  log(line: string): void {
    this.#journal.say(line);
  }

  /** Ends `run` after saving the last completed step. */
  stop(): void {
    this.#loop.stop();
  }

  /** Saves the last completed step now; resolves to the checkpoint's directory. */
  async checkpoint(): Promise<string> {
    return this.#loop.checkpoint();
  }

  /** Closes everything that the trainer opened. Safe to call twice. */
  async close(): Promise<void> {
    await this.#opened.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
