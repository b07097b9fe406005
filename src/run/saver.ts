import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeTrainer } from '../native/binding.js';
import type { CheckpointStore, Manifest } from './checkpoint.js';
import { disk } from './disk.js';
import type { TrainerEvent } from './events.js';
import type { StreamIdentity } from './identity.js';
import type { MetricsFile } from './metrics.js';
import type { LoopStart, StreamState, TrainerState } from './resume.js';

export interface SaverParts {
  native: NativeTrainer;
  config: ResolvedConfig;
  /** Digest of the configuration, for the manifests. */
  digest: string;
  identity: StreamIdentity;
  store: CheckpointStore;
  metrics: MetricsFile;
}

/** What the native side says of a save. */
interface Written {
  step: number;
  state: unknown;
  files?: Manifest['files'];
  copied: boolean;
  held_seconds: number;
}

/** A checkpoint that is being written. */
interface Save {
  step: number;
  /** The state is taken: the trainer may go on. */
  taken: Promise<unknown>;
  /** Its path; rejects with what it failed with. */
  path: Promise<string>;
}

type Outcome = (TrainerEvent & { type: 'checkpoint' }) | { failure: unknown };

/** Writes checkpoints beside the steps, one at a time. */
export class Saver {
  readonly #parts: SaverParts;
  readonly #tell: (outcome: Outcome) => void;
  #inFlight: Save | null = null;
  #newest: { step: number; path: string } | null;

  /** `tell` hears of each checkpoint that is complete, and of each that failed. */
  constructor(parts: SaverParts, start: LoopStart, tell: (outcome: Outcome) => void) {
    this.#parts = parts;
    this.#tell = tell;
    this.#newest = start.checkpoint === null ? null : { step: start.step, path: start.checkpoint };
  }

  /** The newest checkpoint that is complete. */
  get newest(): string | null {
    return this.#newest?.path ?? null;
  }

  /**
   * Begins to save the last completed step, unless that is done or on the way; resolves to the checkpoint's path. When
   * this returns its promise, the trainer may be told to go on: the state is taken first. An earlier save is waited for.
   */
  async begin(at: Readonly<LoopStart>): Promise<Pick<Save, 'path'>> {
    const { step } = at;
    if (this.#inFlight !== null && this.#inFlight.step !== step) await this.settle();
    if (this.#inFlight !== null) {
      const save = this.#inFlight;
      await save.taken;
      return save;
    }
    if (this.#newest?.step === step) return { path: Promise.resolve(this.#newest.path) };
    let taken: () => void = () => undefined;
    const isTaken = new Promise<void>((resolve) => {
      taken = resolve;
    });
    const path = this.#write({ ...at }, taken);
    // It is told by then, and may fail before anybody asks for it.
    const save = { step, path, taken: Promise.race([isTaken, path.catch(() => undefined)]) };
    this.#inFlight = save;
    await save.taken;
    return save;
  }

  /** Waits for the save in flight. Throws what it failed with. */
  async settle(): Promise<void> {
    await this.#inFlight?.path;
  }

  /** Waits for the save in flight, whatever becomes of it. */
  async quiet(): Promise<void> {
    await this.settle().catch(() => undefined);
  }

  /** Deletes what need not be kept since the last evaluation. */
  async prune(): Promise<void> {
    const { store } = this.#parts;
    if (this.#newest !== null) await store.prune(this.#newest.step, this.#retention);
  }

  get #retention() {
    const { config, metrics } = this.#parts;
    const { keep_last: last, keep_every: every, keep_best } = config.checkpoint;
    return (steps: readonly number[]) => ({ last, every, best: keep_best ? metrics.best(steps) : null });
  }

  async #write(at: LoopStart, taken: () => void): Promise<string> {
    const { native, store, config, digest, identity, metrics } = this.#parts;
    const { step, tokens, documents, epoch, hash, reset } = at;
    const began = performance.now();
    try {
      let held = 0;
      let copied = false;
      const checkpoint = await store.save(step, digest, this.#retention, async (directory) => {
        const writing = native.save(directory);
        taken();
        const [text] = await Promise.all([writing, metrics.sync()]);
        const written = JSON.parse(text) as Written;
        if (written.step !== step) {
          throw errorFor(
            'INTERNAL',
            `step ${written.step} was saved as step ${step}`,
            'report this with the command and config.yaml',
          );
        }
        held = written.held_seconds;
        copied = written.copied;
        const state = typeof written.state === 'string' ? written.state : JSON.stringify(written.state);
        const stream: StreamState = { identity, hash, state, reset };
        const trainer: TrainerState = { step, tokens, documents, epoch, configuration: config };
        await disk.writeFile(join(directory, 'stream.json'), `${JSON.stringify(stream, null, 2)}\n`);
        await disk.writeFile(join(directory, 'trainer.json'), `${JSON.stringify(trainer, null, 2)}\n`);
        return written.files ?? {};
      });
      const { path, manifest } = checkpoint;
      this.#newest = { step, path };
      const bytes = Object.values(manifest.files).reduce((sum, file) => sum + file.bytes, 0);
      const seconds = (performance.now() - began) / 1000;
      this.#tell({ type: 'checkpoint', step, path, bytes, seconds, held_seconds: held, copied });
      return path;
    } catch (failure) {
      this.#tell({ failure });
      throw failure;
    } finally {
      this.#inFlight = null;
    }
  }
}
