import type { ResolvedConfig } from '../config/index.js';
import { CandlewickError, errorFor } from '../errors.js';
import type { NativeTokenizer, NativeTrainer } from '../native/binding.js';
import type { CheckpointStore } from './checkpoint.js';
import type { DoneEvent, NativeEvent, TrainerEvent } from './events.js';
import type { HeldOut } from './held-out.js';
import type { StreamIdentity } from './identity.js';
import { isAtLimit, isDue, nextPause } from './limits.js';
import type { MetricsFile, SourceShare, StepRow } from './metrics.js';
import type { LoopStart } from './resume.js';
import type { SamplesFile } from './samples.js';
import { Saver } from './saver.js';
import type { SourceNotice } from './source.js';
import { SPIKE_Z } from './spikes.js';
import type { StopNotice } from './stops.js';

export interface LoopParts {
  native: NativeTrainer;
  config: ResolvedConfig;
  /** Digest of the configuration, for the manifests. */
  digest: string;
  identity: StreamIdentity;
  tokenizer: NativeTokenizer;
  store: CheckpointStore;
  metrics: MetricsFile;
  samples: SamplesFile;
  heldOut: HeldOut | null;
  /** The share of the GPU's peak that a speed is; null where there is no GPU. */
  mfu: ((tokensPerSecond: number) => number | null) | null;
  start: LoopStart;
}

/** What comes to the loop: from the native trainer, and from what goes on beside it. */
type Incoming =
  | NativeEvent
  | Beside
  | { type: 'failure'; cause: unknown }
  // What was worked through while the iteration rested, and is still to be handed out.
  | { type: 'told'; event: TrainerEvent };

/** What is told beside the native trainer, whatever it is doing. */
type Beside = (TrainerEvent & { type: 'checkpoint' }) | StopNotice | (NativeEvent & { type: 'notice' });

/** How the texts of samples are drawn. */
const TEMPERATURE = 0.8;

/** Drives the native trainer: runs it to the next thing to do, saves, evaluates, and stops when told. */
export class TrainingLoop {
  readonly #parts: LoopParts;
  readonly #at: LoopStart;
  readonly #saver: Saver;
  readonly #queue: Incoming[] = [];
  readonly #saveRequests: { resolve: (path: string) => void; reject: (cause: unknown) => void }[] = [];
  readonly #since = { tokens: 0, documents: 0, seconds: 0, waited: 0, skipped: 0 };
  /** Row of a step that is not to be logged, unless it is the last. */
  #unwritten: StepRow | null = null;
  #mix: SourceShare[] | null = null;
  #evaluatedStep: number;
  #sampledStep: number;
  /** An evaluation of this process has fitted into memory. */
  #hasEvaluated = false;
  #stopping = false;
  #busy = false;
  #active = false;
  /** Whoever iterates has an event in hand and has not asked for the next. */
  #resting = false;
  #pulling: Promise<void> | null = null;
  #wake: (() => void) | null = null;

  constructor(parts: LoopParts) {
    this.#parts = parts;
    this.#at = { ...parts.start };
    this.#saver = new Saver(parts, parts.start, (outcome) => {
      this.#put('failure' in outcome ? { type: 'failure', cause: outcome.failure } : outcome);
    });
    this.#evaluatedStep = parts.metrics.evaluated;
    this.#sampledStep = parts.samples.last;
    this.#markRow();
  }

  /** The run ends, saved, after the step that is complete; the one in progress is abandoned. `notice` says why. */
  stop(notice?: StopNotice): void {
    this.#stopping = true;
    if (notice !== undefined) this.#put(notice);
    if (this.#busy) this.#parts.native.stop();
  }

  /** Saves the last completed step; resolves to the checkpoint's path. */
  async checkpoint(): Promise<string> {
    if (!this.#active) return (await this.#saver.begin(this.#at)).path;
    const saved = new Promise<string>((resolve, reject) => {
      this.#saveRequests.push({ resolve, reject });
    });
    if (this.#busy) this.#parts.native.stop();
    // Whoever waits for it before asking for the next event would wait for ever.
    if (this.#resting) void this.#serveResting();
    return saved;
  }

  /** Something about the source that people should know; comes out as a `source` event. */
  notice(notice: SourceNotice): void {
    this.#put({ type: 'notice', ...notice });
  }

  /** Waits for a checkpoint that is being written. */
  async settle(): Promise<void> {
    await this.#saver.quiet();
  }

  async *run(): AsyncGenerator<TrainerEvent, void, undefined> {
    if (this.#active) throw errorFor('INTERNAL', 'run() was called twice', 'one loop drives one trainer');
    this.#active = true;
    try {
      for await (const event of this.#run()) {
        this.#resting = true;
        yield event;
        this.#resting = false;
      }
    } catch (cause) {
      for (const { reject } of this.#saveRequests.splice(0)) reject(cause);
      yield* this.#rescue(cause);
      throw cause;
    } finally {
      this.#active = false;
      this.#resting = false;
      const ended = errorFor(
        'ABORTED',
        'the run ended before the checkpoint',
        'ask for it while the run goes on',
      );
      for (const { reject } of this.#saveRequests.splice(0)) reject(ended);
      await this.#saver.quiet();
    }
  }

  async *#run(): AsyncGenerator<TrainerEvent, void, undefined> {
    const { config, heldOut } = this.#parts;
    // That the disk takes a checkpoint is proved before time is spent.
    if (this.#at.step === 0) yield* this.#save();
    // A run that was killed between a save and its evaluation owes the evaluation.
    if (isDue(this.#at.step, config.evaluation.every_steps) && !this.#stopping) yield* this.#evaluate();
    for (;;) {
      const reason = yield* this.#train();
      await this.#serveRequests();
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
      const evaluates = ended || isDue(this.#at.step, config.evaluation.every_steps);
      // The save comes first: an evaluation that runs out of memory must not cost the run. Once one has fitted, a
      // later one need not wait until the disk has everything.
      if (ended || this.#stopping || (evaluates && !this.#hasEvaluated)) {
        if (ended || this.#stopping || isDue(this.#at.step, config.checkpoint.every_steps))
          yield* this.#save();
        else await this.#saver.settle();
      } else if (isDue(this.#at.step, config.checkpoint.every_steps)) await this.#saver.begin(this.#at);
      if (evaluates && !this.#stopping) yield* this.#evaluate(ended);
      if (ended) await this.#saver.prune();
      // A stop that cut the last evaluation off leaves something to do.
      if (ended || this.#stopping) {
        // It may be on its way still, where the stop came during the evaluation.
        yield* this.#save();
        yield this.#done(ended && !this.#owesEvaluation(ended) ? reason : 'stopped');
        return;
      }
    }
  }

  /** Steps until the next pause. */
  async *#train(): AsyncGenerator<TrainerEvent, 'target' | 'stopped' | 'ended' | 'limit', undefined> {
    const { native, config } = this.#parts;
    // One may have come while nothing was there to be stopped for it.
    await this.#serveRequests();
    if (this.#stopping) return 'stopped';
    if (isAtLimit(config, this.#at)) return 'limit';
    this.#busy = true;
    try {
      native.runUntil(nextPause(config, this.#at.step, this.#evaluates));
      for (;;) {
        const event = await this.#next();
        yield* this.#take(event);
        if (event.type === 'paused') {
          const whole = event.reason !== 'stopped' && isAtLimit(config, this.#at);
          return whole ? 'limit' : event.reason;
        }
      }
    } finally {
      this.#busy = false;
    }
  }

  /** Works an event through; what is to be handed out of it. */
  #take(event: Incoming): TrainerEvent[] {
    if (event.type === 'told') return [event.event];
    if (event.type === 'step') return this.#step(event);
    if (event.type === 'skipped') return [this.#skipped(event)];
    if (event.type === 'left_out') return [this.#leftOut(event)];
    if (event.type === 'waiting')
      return [{ type: 'source', message: `waiting for data since ${Math.round(event.seconds)} s` }];
    return isBeside(event) ? [told(event)] : [];
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

  /** Its tokens are consumed and count, though nothing was learned from them. */
  #skipped(event: NativeEvent & { type: 'skipped' }): TrainerEvent {
    const { type, step, loss, grad_norm, in_a_row, limit } = event;
    this.#since.skipped += 1;
    this.#since.seconds += event.seconds;
    this.#since.waited += event.data_wait_seconds;
    return { type, step, loss, grad_norm, in_a_row, limit };
  }

  #step(event: NativeEvent & { type: 'step' }): TrainerEvent[] {
    const { config } = this.#parts;
    const { step, loss, grad_norm, lr, tokens, documents, epoch, mix, stream_hash } = event;
    const since = this.#since;
    since.seconds += event.seconds;
    since.waited += event.data_wait_seconds;
    const seconds = Math.max(since.seconds, 1e-9);
    const speed = (tokens - since.tokens) / seconds;
    const { mfu } = this.#parts;
    const row: StepRow = {
      step,
      loss,
      grad_norm,
      lr,
      tokens,
      documents,
      epoch,
      ...(mix === undefined ? {} : { mix }),
      tokens_per_second: speed,
      ...(mfu === null ? {} : { mfu: mfu(speed) }),
      samples_per_second: (documents - since.documents) / seconds,
      data_wait: Math.min(1, since.waited / seconds),
      ...(since.skipped === 0 ? {} : { skipped_steps: since.skipped }),
      memory: process.memoryUsage.rss(),
      stream_hash,
      time: Date.now() / 1000,
    };
    Object.assign(this.#at, { step, tokens, documents, epoch, hash: stream_hash });
    if (mix !== undefined) this.#mix = mix;
    this.#unwritten = row;
    const isRow = step % config.logging.every_steps === 0;
    const { mean } = this.#parts.metrics.losses;
    if (isRow) this.#writeRow();
    const z = row.loss_z;
    const spikes = isRow && z !== undefined && z > SPIKE_Z;
    return [{ type: 'step', ...row }, ...(spikes ? [{ type: 'spike', step, loss, mean, z } as const] : [])];
  }

  /** Writes a checkpoint of the last completed step, unless there is one, and waits until it is complete. */
  async *#save(): AsyncGenerator<TrainerEvent, void, undefined> {
    await (await this.#saver.begin(this.#at)).path;
    yield* this.#told();
  }

  /** What was told meanwhile beside the native trainer. */
  *#told(): Generator<TrainerEvent, void, undefined> {
    for (const event of this.#queue.splice(0)) {
      if (isBeside(event)) yield told(event);
      else this.#queue.push(event);
    }
  }

  /** Whether there is anything to do every so many steps. */
  get #evaluates(): boolean {
    return this.#parts.heldOut !== null || this.#prompts(false).length > 0;
  }

  #owesEvaluation(ended: boolean): boolean {
    const { heldOut } = this.#parts;
    const { step } = this.#at;
    if (heldOut !== null && step !== this.#evaluatedStep) return true;
    return this.#prompts(ended).length > 0 && step !== this.#sampledStep;
  }

  /** Texts to continue: those that are asked for, or in the end at least one. */
  #prompts(ended: boolean): string[] {
    const { prompt, prompts, sample_tokens } = this.#parts.config.evaluation;
    if (sample_tokens === 0) return [];
    return prompts.length > 0 ? prompts : ended && prompt !== '' ? [prompt] : [];
  }

  async *#evaluate(ended = false): AsyncGenerator<TrainerEvent, void, undefined> {
    const { step } = this.#at;
    if (step === 0 || !this.#owesEvaluation(ended)) return;
    const { heldOut } = this.#parts;
    if (heldOut !== null && step !== this.#evaluatedStep) yield* this.#evaluateHeldOut(heldOut, ended);
    const prompts = this.#prompts(ended);
    if (prompts.length > 0 && step !== this.#sampledStep && !this.#stopping) yield* this.#sample(prompts);
    this.#hasEvaluated = true;
  }

  async *#evaluateHeldOut(heldOut: HeldOut, ended: boolean): AsyncGenerator<TrainerEvent, void, undefined> {
    const { native, metrics } = this.#parts;
    const event = yield* this.#ask('eval', () => native.evaluate(heldOut.native));
    if (event === null) return;
    const alone = ended ? yield* this.#ask('eval', () => native.evaluate(heldOut.native, 1)) : undefined;
    if (alone === null) return;
    const { step } = this.#at;
    const row = {
      step,
      eval_loss: event.nats / event.targets,
      bits_per_byte: event.nats / Math.LN2 / heldOut.bytes,
      ...(alone === undefined ? {} : { one_token_loss: alone.nats / alone.targets }),
      time: Date.now() / 1000,
    };
    metrics.append(row);
    this.#evaluatedStep = step;
    const { unigramBitsPerByte: unigram_bits_per_byte, gzipBitsPerByte: gzip_bits_per_byte } = heldOut;
    yield { type: 'eval', ...row, unigram_bits_per_byte, gzip_bits_per_byte };
  }

  async *#sample(prompts: readonly string[]): AsyncGenerator<TrainerEvent, void, undefined> {
    const { native, tokenizer, samples, config } = this.#parts;
    const { step } = this.#at;
    const options = JSON.stringify({
      max_tokens: config.evaluation.sample_tokens,
      temperature: TEMPERATURE,
      seed: config.training.seed,
      vocabulary: tokenizer.vocabSize(),
    });
    const texts: { prompt: string; text: string }[] = [];
    for (const prompt of prompts) {
      const ids = [...tokenizer.encode(prompt)];
      if (ids.length === 0) ids.push(tokenizer.endOfText().id);
      const event = yield* this.#ask('sample', () => native.sample(ids, options));
      if (event === null) return;
      texts.push({ prompt, text: tokenizer.decode(Uint32Array.from(event.ids), true) });
    }
    samples.append(step, texts);
    this.#sampledStep = step;
    for (const sample of texts) yield { type: 'sample', step, ...sample };
  }

  /** Has the native trainer do something that ends in an event of `type`; null where the run was stopped meanwhile. */
  async *#ask<T extends NativeEvent['type']>(
    type: T,
    begin: () => void,
  ): AsyncGenerator<TrainerEvent, (NativeEvent & { type: T }) | null, undefined> {
    if (this.#stopping) return null;
    this.#busy = true;
    try {
      begin();
      for (;;) {
        const event = await this.#next();
        if (event.type === type) return event as NativeEvent & { type: T };
        yield* this.#take(event);
        if (event.type === 'paused' && event.reason === 'stopped') {
          if (this.#stopping) return null;
          // Stopped for a checkpoint that a program asked for: serve it, then begin again.
          await this.#serveRequests();
          begin();
        }
      }
    } finally {
      this.#busy = false;
    }
  }

  async #serveRequests(): Promise<void> {
    if (this.#saveRequests.length === 0) return;
    const { path } = await this.#saver.begin(this.#at);
    for (const { resolve, reject } of this.#saveRequests.splice(0)) path.then(resolve, reject);
  }

  /** Serves requests without the iteration: what comes until the native trainer rests is worked through, and kept. */
  async #serveResting(): Promise<void> {
    const isEnd = ({ type }: Incoming) => ['paused', 'eval', 'sample', 'error', 'failure'].includes(type);
    try {
      while (this.#busy && !this.#queue.some(isEnd)) {
        this.#pulling ??= this.#pull();
        await this.#pulling;
      }
      // Asked for the next event meanwhile, the iteration serves them itself.
      if (!this.#resting) return;
      for (const event of this.#queue)
        if (event.type === 'error' || event.type === 'failure') throw causeOf(event);
      const kept = this.#queue.flatMap((event): Incoming[] => {
        const said = this.#take(event);
        return said.length === 0 ? [event] : said.map((event) => ({ type: 'told', event }));
      });
      this.#queue.splice(0, this.#queue.length, ...kept);
      await this.#serveRequests();
    } catch (cause) {
      for (const { reject } of this.#saveRequests.splice(0)) reject(cause);
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

  #done(reason: DoneEvent['reason']): DoneEvent {
    const { step, tokens, documents, hash } = this.#at;
    const checkpoint = this.#saver.newest;
    const mix = this.#mix === null ? {} : { mix: this.#mix };
    return { type: 'done', reason, step, tokens, documents, ...mix, stream_hash: hash, checkpoint };
  }

  /** Writes the row of the last step, unless it is written. */
  #writeRow(): void {
    const row = this.#unwritten;
    if (row !== null) {
      const z = this.#parts.metrics.losses.next(row.loss);
      if (z !== null) row.loss_z = Number(z.toFixed(3));
      this.#parts.metrics.append(row);
    }
    this.#markRow();
  }

  #markRow(): void {
    const { tokens, documents } = this.#at;
    this.#unwritten = null;
    Object.assign(this.#since, { tokens, documents, seconds: 0, waited: 0, skipped: 0 });
  }

  #put(event: Incoming): void {
    this.#queue.push(event);
    this.#wake?.();
  }

  /** The next event; throws the ones that are errors. */
  async #next(): Promise<Exclude<Incoming, { type: 'error' | 'failure' }>> {
    while (this.#queue.length === 0) {
      this.#pulling ??= this.#pull();
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await Promise.race([this.#pulling, woken]);
    }
    const event = this.#queue.shift() as Incoming;
    if (event.type === 'failure' || event.type === 'error') throw causeOf(event);
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

function causeOf(event: Incoming & { type: 'error' | 'failure' }): unknown {
  return event.type === 'failure' ? event.cause : errorFor(event.code, event.message, event.hint);
}

function isBeside(event: Incoming): event is Beside {
  return event.type === 'checkpoint' || event.type === 'notice' || event.type === 'stopping';
}

function told(event: Beside): TrainerEvent {
  return event.type === 'notice' ? { ...event, type: 'source' } : event;
}
