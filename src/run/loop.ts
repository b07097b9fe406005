import { join } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import { CandlewickError, errorFor } from '../errors.js';
import type { NativeTrainer } from '../native/binding.js';
import type { CheckpointStore } from './checkpoint.js';
import { disk } from './disk.js';
import type { DoneEvent, NativeEvent, TrainerEvent } from './events.js';
import type { HeldOut } from './held-out.js';
import type { StreamIdentity } from './identity.js';
import { isAtLimit, isDue, nextPause } from './limits.js';
import type { MetricsFile, SourceShare, StepRow } from './metrics.js';
import type { SourceNotice } from './source.js';
import type { LoopStart, StreamState, TrainerState } from './resume.js';

export interface LoopParts {
  native: NativeTrainer;
  config: ResolvedConfig;
  /** Digest of the configuration, for the manifests. */
  digest: string;
  identity: StreamIdentity;
  store: CheckpointStore;
  metrics: MetricsFile;
  heldOut: HeldOut | null;
  start: LoopStart;
}

/** Drives the native trainer: runs it to the next thing to do, saves, evaluates, and stops when told. */
export class TrainingLoop {
  readonly #parts: LoopParts;
  readonly #at: LoopStart;
  readonly #queue: NativeEvent[] = [];
  readonly #saveRequests: { resolve: (path: string) => void; reject: (cause: unknown) => void }[] = [];
  readonly #since = { tokens: 0, documents: 0, seconds: 0, waited: 0 };
  /** Row of a step that is not to be logged, unless it is the last. */
  #unwritten: StepRow | null = null;
  #mix: SourceShare[] | null = null;
  #savedStep: number;
  #evaluatedStep: number;
  #stopping = false;
  #busy = false;
  #active = false;
  #pulling: Promise<void> | null = null;
  #wake: (() => void) | null = null;

  constructor(parts: LoopParts) {
    this.#parts = parts;
    this.#at = { ...parts.start };
    this.#savedStep = parts.start.checkpoint === null ? 0 : parts.start.step;
    this.#evaluatedStep = parts.metrics.history.evaluated;
    this.#markRow();
  }

  /** The run ends, saved, after the step that is complete; the one in progress is abandoned. */
  stop(): void {
    this.#stopping = true;
    if (this.#busy) this.#parts.native.stop();
  }

  /** Saves the last completed step; resolves to the checkpoint's path. */
  async checkpoint(): Promise<string> {
    if (!this.#active) {
      for await (const _ of this.#save());
      return this.#requireCheckpoint();
    }
    const saved = new Promise<string>((resolve, reject) => {
      this.#saveRequests.push({ resolve, reject });
    });
    if (this.#busy) this.#parts.native.stop();
    return saved;
  }

  /** Something about the source that people should know; comes out as a `source` event. */
  notice(notice: SourceNotice): void {
    this.#queue.push({ type: 'notice', ...notice });
    this.#wake?.();
  }

  async *run(): AsyncGenerator<TrainerEvent, void, undefined> {
    if (this.#active) throw errorFor('INTERNAL', 'run() was called twice', 'one loop drives one trainer');
    this.#active = true;
    try {
      yield* this.#run();
    } catch (cause) {
      for (const { reject } of this.#saveRequests.splice(0)) reject(cause);
      yield* this.#rescue(cause);
      throw cause;
    } finally {
      this.#active = false;
      const ended = errorFor(
        'ABORTED',
        'the run ended before the checkpoint',
        'ask for it while the run goes on',
      );
      for (const { reject } of this.#saveRequests.splice(0)) reject(ended);
    }
  }

  async *#run(): AsyncGenerator<TrainerEvent, void, undefined> {
    const { config, heldOut } = this.#parts;
    // A run that was killed between a save and its evaluation owes the evaluation.
    if (isDue(this.#at.step, config.evaluation.every_steps) && !this.#stopping) yield* this.#evaluate();
    for (;;) {
      const reason = yield* this.#train();
      yield* this.#serveRequests();
      if (reason === 'stopped' && !this.#stopping) continue;
      const ended = reason === 'limit' || reason === 'ended';
      if (ended && this.#at.step === 0) {
        throw errorFor(
          'DATASET_EMPTY',
          'the data ended before the first step: there is no document to train on',
          heldOut === null
            ? 'check data.text_column and data.split'
            : 'lower evaluation.documents, or check data.text_column',
        );
      }
      if (ended) this.#writeRow();
      // The save comes first: an evaluation that runs out of memory must not cost the run.
      if (ended || this.#stopping || isDue(this.#at.step, config.checkpoint.every_steps)) yield* this.#save();
      if (!this.#stopping && (ended || isDue(this.#at.step, config.evaluation.every_steps)))
        yield* this.#evaluate();
      if (ended || this.#stopping) {
        yield this.#done(ended ? reason : 'stopped');
        return;
      }
    }
  }

  /** Steps until the next pause. */
  async *#train(): AsyncGenerator<TrainerEvent, 'target' | 'stopped' | 'ended' | 'limit', undefined> {
    const { native, config, heldOut } = this.#parts;
    if (this.#stopping) return 'stopped';
    if (isAtLimit(config, this.#at)) return 'limit';
    this.#busy = true;
    try {
      native.runUntil(nextPause(config, this.#at.step, heldOut !== null));
      for (;;) {
        const event = await this.#next();
        if (event.type === 'step') yield this.#step(event);
        else if (event.type === 'notice') yield { ...event, type: 'source' };
        else if (event.type === 'left_out') yield this.#leftOut(event);
        else if (event.type === 'waiting') {
          yield { type: 'source', message: `waiting for data since ${Math.round(event.seconds)} s` };
        } else if (event.type === 'paused') {
          const whole = event.reason !== 'stopped' && isAtLimit(config, this.#at);
          return whole ? 'limit' : event.reason;
        }
      }
    } finally {
      this.#busy = false;
    }
  }

  /** What was left out counts in the totals and not in the speed. */
  #leftOut({ last, batches, tokens, documents }: NativeEvent & { type: 'left_out' }): TrainerEvent {
    this.#since.tokens += tokens;
    this.#since.documents += documents;
    const which = batches === 1 ? `batch ${last}` : `batches ${last - batches + 1} to ${last}`;
    const count = (n: number) => n.toLocaleString('en-US');
    return {
      type: 'source',
      message: `left out ${which} (${count(tokens)} tokens, ${count(documents)} documents), as data.skip_steps says`,
    };
  }

  #step(event: NativeEvent & { type: 'step' }): TrainerEvent {
    const { config } = this.#parts;
    const { step, loss, grad_norm, lr, tokens, documents, epoch, mix, stream_hash } = event;
    const since = this.#since;
    since.seconds += event.seconds;
    since.waited += event.data_wait_seconds;
    const seconds = Math.max(since.seconds, 1e-9);
    const row: StepRow = {
      step,
      loss,
      grad_norm,
      lr,
      tokens,
      documents,
      epoch,
      ...(mix === undefined ? {} : { mix }),
      tokens_per_second: (tokens - since.tokens) / seconds,
      samples_per_second: (documents - since.documents) / seconds,
      data_wait: Math.min(1, since.waited / seconds),
      stream_hash,
      time: Date.now() / 1000,
    };
    Object.assign(this.#at, { step, tokens, documents, epoch, hash: stream_hash });
    if (mix !== undefined) this.#mix = mix;
    this.#unwritten = row;
    if (step % config.logging.every_steps === 0) this.#writeRow();
    return { type: 'step', ...row };
  }

  /** Writes a checkpoint of the last completed step, unless there is one. */
  async *#save(): AsyncGenerator<TrainerEvent, void, undefined> {
    const { native, store, config, digest, identity, metrics } = this.#parts;
    const { step, tokens, documents, epoch, hash, reset } = this.#at;
    if (step === 0 || step === this.#savedStep) return;
    const began = performance.now();
    metrics.sync();
    const { path } = await store.save(step, digest, config.checkpoint.keep_last, async (directory) => {
      native.save(directory);
      const saved = await this.#until('saved');
      if (saved.step !== step) {
        throw errorFor(
          'INTERNAL',
          `step ${saved.step} was saved as step ${step}`,
          'report this with the command and config.yaml',
        );
      }
      const state = typeof saved.state === 'string' ? saved.state : JSON.stringify(saved.state);
      const stream: StreamState = { identity, hash, state, reset };
      const trainer: TrainerState = { step, tokens, documents, epoch, configuration: config };
      await disk.writeFile(join(directory, 'stream.json'), `${JSON.stringify(stream, null, 2)}\n`);
      await disk.writeFile(join(directory, 'trainer.json'), `${JSON.stringify(trainer, null, 2)}\n`);
    });
    this.#savedStep = step;
    this.#at.checkpoint = path;
    yield { type: 'checkpoint', step, path, seconds: (performance.now() - began) / 1000 };
  }

  async *#evaluate(): AsyncGenerator<TrainerEvent, void, undefined> {
    const { native, heldOut, metrics } = this.#parts;
    const { step } = this.#at;
    if (heldOut === null || step === 0 || step === this.#evaluatedStep) return;
    this.#busy = true;
    try {
      native.evaluate(heldOut.native);
      for (;;) {
        const event = await this.#next();
        if (event.type === 'paused' && event.reason === 'stopped') {
          if (this.#stopping) return;
          // Stopped for a checkpoint that a program asked for: serve it, then begin again.
          yield* this.#serveRequests();
          native.evaluate(heldOut.native);
        }
        if (event.type !== 'eval') continue;
        const row = {
          step,
          eval_loss: event.nats / event.targets,
          bits_per_byte: event.nats / Math.LN2 / heldOut.bytes,
          time: Date.now() / 1000,
        };
        metrics.append(row);
        this.#evaluatedStep = step;
        const { unigramBitsPerByte: unigram_bits_per_byte, gzipBitsPerByte: gzip_bits_per_byte } = heldOut;
        yield { type: 'eval', ...row, unigram_bits_per_byte, gzip_bits_per_byte };
        return;
      }
    } finally {
      this.#busy = false;
    }
  }

  async *#serveRequests(): AsyncGenerator<TrainerEvent, void, undefined> {
    if (this.#saveRequests.length === 0) return;
    yield* this.#save();
    for (const { resolve, reject } of this.#saveRequests.splice(0)) {
      try {
        resolve(this.#requireCheckpoint());
      } catch (cause) {
        reject(cause);
      }
    }
  }

  /** When the source fails, what was learned until then is kept. */
  async *#rescue(cause: unknown): AsyncGenerator<TrainerEvent, void, undefined> {
    if (!(cause instanceof CandlewickError) || cause.exitCode !== 4) return;
    try {
      yield* this.#save();
    } catch {
      // The first error is the one to report.
    }
  }

  #requireCheckpoint(): string {
    const path = this.#at.checkpoint;
    if (path === null)
      throw errorFor('ABORTED', 'no step is complete yet', 'ask for a checkpoint after the first step');
    return path;
  }

  #done(reason: DoneEvent['reason']): DoneEvent {
    const { step, tokens, documents, hash, checkpoint } = this.#at;
    const mix = this.#mix === null ? {} : { mix: this.#mix };
    return { type: 'done', reason, step, tokens, documents, ...mix, stream_hash: hash, checkpoint };
  }

  /** Writes the row of the last step, unless it is written. */
  #writeRow(): void {
    if (this.#unwritten !== null) this.#parts.metrics.append(this.#unwritten);
    this.#markRow();
  }

  #markRow(): void {
    const { tokens, documents } = this.#at;
    this.#unwritten = null;
    Object.assign(this.#since, { tokens, documents, seconds: 0, waited: 0 });
  }

  async #until<T extends NativeEvent['type']>(type: T): Promise<NativeEvent & { type: T }> {
    for (;;) {
      const event = await this.#next();
      if (event.type === type) return event as NativeEvent & { type: T };
    }
  }

  /** The next event; throws the ones that are errors. */
  async #next(): Promise<NativeEvent> {
    while (this.#queue.length === 0) {
      this.#pulling ??= this.#pull();
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([this.#pulling, woken]);
    }
    const event = this.#queue.shift() as NativeEvent;
    if (event.type === 'error') throw errorFor(event.code, event.message, event.hint);
    return event;
  }

  async #pull(): Promise<void> {
    try {
      const texts = await this.#parts.native.nextEvents(64);
      if (texts.length === 0) throw errorFor('ABORTED', 'the trainer was closed', 'create another to go on');
      this.#queue.push(...texts.map((text) => JSON.parse(text) as NativeEvent));
    } finally {
      this.#pulling = null;
    }
  }
}
