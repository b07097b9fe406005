import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errorFor } from '../../src/errors.js';
import type {
  CudaReport,
  FeedOptions,
  NativeBinding,
  NativeDecodeStream,
  NativeEncodedBatch,
  NativeFeed,
  NativeHeldOut,
  NativeLink,
  NativeQualitySample,
  NativeTokenizer,
  NativeTrainer,
  RunMemory,
} from '../../src/native/binding.js';
import type { SourceConfig, SourceReady, TrainableCorpus } from '../../src/run/index.js';

const noCuda = (): CudaReport => ({
  built: false,
  driver: null,
  gpus: [],
  libraries: [],
  wheels: [],
  trouble: null,
});

/**
 * A binding without native code: the loss is a function of the step, so that a run that was resumed can be held
 * against one that never stopped. Faults are set as properties.
 */
export class FakeNative {
  /** Feeds that were made, in order. */
  readonly feeds: FeedOptions[] = [];
  /** Options of the trainers that were made. */
  readonly trainers: { options: Record<string, unknown>; trainer: FakeTrainer }[] = [];
  /** The data ends after this step; null: never. */
  endsAfter: number | null = null;
  /** Thrown, as an event, instead of completing this step. */
  failAt: { step: number; code: string } | null = null;
  /** Batches that are skipped before this step, as their loss is not finite. */
  skipsBefore: (step: number) => number = () => 0;
  /** Loss of a step. */
  lossAt: (step: number) => number = lossOf;
  /** What that says. */
  failMessage = 'injected';
  /** Called before each step completes. */
  beforeStep: (step: number) => void | Promise<void> = () => undefined;
  /** Called when an evaluation begins, but not for that with one token of context. */
  onEvaluate: () => void | Promise<void> = () => undefined;
  /** Called when the native side has taken the state and writes it. */
  onSave: (directory: string) => void | Promise<void> = () => undefined;
  /** Called while a tokenizer is trained. */
  onConsume: () => void | Promise<void> = () => undefined;
  /** Called when a trainer is told to stop. */
  onStop: () => void = () => undefined;
  /** What an evaluation after this step finds, summed over its 10 targets. */
  natsAt: (step: number, context?: number) => number = () => 100 * Math.LN2;
  /** Parameters of every model. */
  parameters = 3;
  /** What was opened, in order. */
  readonly opened: Partial<SourceConfig>[] = [];
  vocabSize = 300;
  /** What a run is said to take. */
  memory: RunMemory = {
    weights: 1,
    gradients: 1,
    moments: 1,
    activations: 1,
    stream: 1,
    tokenizer: 1,
    process: 1,
    logits: 1,
    scratch: 1,
    required: 9,
    snapshot: 0,
    peak: 9,
    device: null,
  };

  readonly binding: NativeBinding = {
    version: () => 'fake',
    hasCuda: () => false,
    cudaReport: noCuda,
    lookAtCuda: async () => noCuda(),
    freeGpuMemory: () => null,
    checkModelForCuda: () => undefined,
    createPipe: () => null,
    createLink: () => fakeLink,
    createLineLink: () => {
      throw new Error('no test of a run reads a program through the fake');
    },
    createFeed: (options) => {
      this.feeds.push(options);
      return new FakeFeed(options);
    },
    collectHeldOut: async (feed) => {
      return fakeHeldOut((feed as FakeFeed).options.max_samples ?? 0);
    },
    joinHeldOut: (parts) => fakeHeldOut(parts.reduce((sum, part) => sum + part.documents(), 0)),
    tokenizerFromPath: async (path) => {
      try {
        const { size } = JSON.parse(readFileSync(join(path, 'tokenizer.json'), 'utf8')) as { size: number };
        return new FakeTokenizer(size);
      } catch (cause) {
        throw errorFor('TOKENIZER_INVALID', `${path} holds no tokenizer`, 'name another directory', cause);
      }
    },
    tokenizerFromRankFile: () => {
      throw new Error('the fake reads no rank file');
    },
    createTokenizerTrainer: (options) => {
      const { vocab_size: size } = JSON.parse(options) as { vocab_size: number };
      let documents = 0;
      return {
        keepIn: async () => null,
        startFrom: () => undefined,
        loadCounts: async () => undefined,
        saveCounts: async () => undefined,
        count: async () => undefined,
        consume: async () => {
          documents = 10;
          await this.onConsume();
        },
        progress: () => JSON.stringify({ phase: 'count', documents, bytes: documents * 100, merges: 0 }),
        abort: () => undefined,
        finish: async () => new FakeTokenizer(size),
      };
    },
    createTrainer: async (options, feed) => {
      const parsed = JSON.parse(options) as Record<string, unknown>;
      const trainer = new FakeTrainer(this, parsed, (feed as FakeFeed).options);
      this.trainers.push({ options: parsed, trainer });
      return trainer;
    },
    loadModel: async () => ({
      generate: () => {
        const pieces = [' upon', ' a time'];
        return { next: async () => pieces.shift() ?? null, cancel: () => undefined };
      },
      close: async () => undefined,
    }),
    exportModel: async () => {
      throw new Error('a fake has no weights to export');
    },
    inspectModel: () => JSON.stringify({ vocab_size: this.vocabSize, tokenizer: '' }),
    checkWeights: () => undefined,
    createStepTimer: () => {
      throw new Error('no test of a run times the fake');
    },
    estimateMemory: () => this.memory,
    parameterCount: () =>
      JSON.stringify({ embedding: 1, blocks: this.parameters - 1, head: 0, total: this.parameters }),
  };

  /** A corpus of two files. */
  corpus(ready: Partial<SourceReady> = {}, data: Partial<SourceConfig> = {}): TrainableCorpus {
    return {
      open: async () => {
        this.opened.push(data);
        const announced: SourceReady = {
          dataset: 'made/up',
          config_name: null,
          split: 'train',
          revision: 'c0ffee',
          text_column: 'text',
          files: ['a.parquet', 'b.parquet'],
          row_groups: true,
          total_rows: 1000,
          ...ready,
        };
        const { dataset, revision } = announced;
        const source = {
          link: fakeLink,
          ready: announced,
          identity: { dataset, revision },
          weight: 1,
          on_exhausted: 'stop' as const,
        };
        return { sources: [source], release: () => undefined };
      },
      close: async () => undefined,
    };
  }
}

/** What the fake step `n` has as its loss. */
export function lossOf(step: number): number {
  return 10 / step;
}

/** Tokens and documents a step. */
const TOKENS = 64;
const DOCUMENTS = 2;

interface Limits {
  max_steps: number | null;
  max_tokens: number | null;
  max_samples: number | null;
}

class FakeTrainer implements NativeTrainer {
  readonly #native: FakeNative;
  readonly #limits: Limits;
  readonly #events: string[] = [];
  #wake: (() => void) | null = null;
  #step = 0;
  #stopped = false;
  #closed = false;

  constructor(native: FakeNative, options: Record<string, unknown>, feed: FeedOptions) {
    this.#native = native;
    this.#limits = options['limits'] as Limits;
    if (typeof options['checkpoint'] === 'string') {
      this.#step = Number(readFileSync(join(options['checkpoint'], 'model.safetensors'), 'utf8'));
      const state = JSON.parse(feed.state ?? '{}') as { step?: number };
      if (state.step !== this.#step) throw new Error(`stream at ${state.step}, weights at ${this.#step}`);
    }
  }

  runUntil(step: number): void {
    this.#stopped = false;
    void this.#run(step);
  }

  evaluate(_heldOut: NativeHeldOut, context?: number): void {
    this.#stopped = false;
    void (async () => {
      if (context === undefined) await this.#native.onEvaluate();
      if (this.#stopped) this.#send({ type: 'paused', step: this.#step, reason: 'stopped' });
      else
        this.#send({
          type: 'eval',
          step: this.#step,
          nats: this.#native.natsAt(this.#step, context),
          targets: 10,
        });
    })();
  }

  sample(): void {
    this.#stopped = false;
    this.#send({ type: 'sample', step: this.#step, ids: [1, 2] });
  }

  async save(dir: string): Promise<string> {
    const step = this.#step;
    try {
      writeFileSync(join(dir, 'model.safetensors'), String(step));
      writeFileSync(join(dir, 'config.json'), '{}');
      await this.#native.onSave(dir);
    } catch (cause) {
      const full = cause instanceof Error && 'code' in cause && cause.code === 'ENOSPC';
      throw errorFor(full ? 'DISK_FULL' : 'INTERNAL', String(cause), 'free some space', cause);
    }
    return JSON.stringify({ step, state: JSON.stringify({ step }), copied: true, held_seconds: 0.01 });
  }

  stop(): void {
    this.#stopped = true;
    this.#native.onStop();
  }

  async nextEvents(max: number): Promise<string[]> {
    while (this.#events.length === 0 && !this.#closed) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    return this.#events.splice(0, max);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake?.();
  }

  async #run(target: number): Promise<void> {
    const { max_steps: steps, max_tokens: tokens, max_samples: samples } = this.#limits;
    for (;;) {
      const at = this.#step;
      const pause = (reason: string) => this.#send({ type: 'paused', step: at, reason });
      if (this.#stopped || this.#closed) return pause('stopped');
      if ((steps !== null && at >= steps) || (tokens !== null && at * TOKENS >= tokens))
        return pause('limit');
      if (samples !== null && at * DOCUMENTS >= samples) return pause('ended');
      if (this.#native.endsAfter !== null && at >= this.#native.endsAfter) return pause('ended');
      if (at >= target) return pause('target');
      const step = at + 1;
      await this.#native.beforeStep(step);
      if (this.#stopped) return pause('stopped');
      if (this.#native.failAt?.step === step) {
        return this.#send({
          type: 'error',
          code: this.#native.failAt.code,
          message: this.#native.failMessage,
          hint: 'none',
        });
      }
      for (let skipped = 1; skipped <= this.#native.skipsBefore(step); skipped++) {
        const counts = {
          in_a_row: skipped,
          limit: 5,
          tokens: step * TOKENS,
          seconds: 0.5,
          data_wait_seconds: 0,
        };
        this.#send({ type: 'skipped', step: at, loss: null, grad_norm: null, ...counts });
      }
      this.#step = step;
      this.#send({
        type: 'step',
        step,
        loss: this.#native.lossAt(step),
        grad_norm: 1,
        lr: 1e-3,
        tokens: step * TOKENS,
        documents: step * DOCUMENTS,
        epoch: 1,
        seconds: 0.5,
        data_wait_seconds: 0.05,
        stream_hash: step.toString(16).padStart(16, '0'),
      });
      await Promise.resolve();
    }
  }

  #send(event: object): void {
    this.#events.push(JSON.stringify(event));
    this.#wake?.();
  }
}

class FakeFeed implements NativeFeed {
  readonly options: FeedOptions;

  constructor(options: FeedOptions) {
    this.options = options;
  }

  async nextDocuments(): Promise<string[] | null> {
    return null;
  }

  async nextBatch(): Promise<null> {
    return null;
  }

  async advance(): Promise<string> {
    return JSON.stringify({ batches: 0, state: {} });
  }

  async spans(): Promise<string> {
    return '[]';
  }

  stats(): string {
    return '{}';
  }

  async close(): Promise<void> {}
}

class FakeTokenizer implements NativeTokenizer {
  readonly #size: number;

  constructor(size: number) {
    this.#size = size;
  }

  encode(): Uint32Array {
    return new Uint32Array();
  }

  encodeDocument(): Uint32Array {
    return new Uint32Array();
  }

  encodeWithOffsets(): { ids: Uint32Array; offsets: Uint32Array } {
    return { ids: new Uint32Array(), offsets: new Uint32Array() };
  }

  async encodeBatch(): Promise<NativeEncodedBatch> {
    return { lists: [], parts: new Uint32Array() };
  }

  decodeStream(): NativeDecodeStream {
    return { push: () => '', finish: () => '' };
  }

  async facts(): Promise<string> {
    return JSON.stringify({ vocab_size: this.#size, unreachable: null });
  }

  qualitySample(): NativeQualitySample {
    const counted = { documents: 1, bytes: 8, bytes_per_token: 4, tokens_per_word: 2, lossless_documents: 1 };
    const shares = { single_byte_share: 0, partial_character_share: 0 };
    const unreached = { count: 0, of: this.#size, share: 0, first: [] };
    return {
      count: async () => undefined,
      consume: async () => undefined,
      report: async () => JSON.stringify({ ...counted, ...shares, unreached }),
      byVocabSize: async () => '[]',
      compare: async () => '{}',
    };
  }

  decode(ids: Uint32Array): string {
    return ids.length === 0 ? '' : ' upon a time';
  }

  vocabSize(): number {
    return this.#size;
  }

  endOfText(): { id: number; token: string } {
    return { id: 0, token: '<|endoftext|>' };
  }

  digest(): string {
    return createHash('sha256').update(String(this.#size)).digest('hex');
  }

  async save(dir: string): Promise<void> {
    writeFileSync(join(dir, 'tokenizer.json'), JSON.stringify({ size: this.#size }));
    writeFileSync(join(dir, 'tokenizer_config.json'), '{}');
  }
}

const fakeLink: NativeLink = {
  push: () => null,
  nextWrites: async () => null,
  restart: () => undefined,
  fail: () => undefined,
  close: () => undefined,
};

function fakeHeldOut(documents: number): NativeHeldOut {
  const text = Buffer.from('the same words again and again '.repeat(documents));
  return {
    ends: () => [{ file: 0, group: 0, row: documents - 1, documents }],
    documents: () => documents,
    bytes: () => text.length,
    text: () => text,
    unigramBitsPerByte: () => 4,
  };
}
