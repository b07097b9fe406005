import { availableParallelism } from 'node:os';
import { feedSources, linksOf, type OpenSource, type StreamingCorpus } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type { NativeFeed } from '../native/binding.js';
import { native } from '../native/index.js';
import type { Tokenizer } from '../tokenizer/index.js';

/** The form of the batches, and the order of the documents in them. */
export interface LoaderOptions {
  /** Sequences of the global batch. */
  batchSize: number;
  /** Tokens a sequence. */
  sequenceLength: number;
  /** Documents of a shuffle window; default: 10,000. */
  shuffleBufferSize?: number | undefined;
  /** Decides the order; default: 1. */
  seed?: number | undefined;
  /** This process takes rows [rank · B / worldSize, (rank + 1) · B / worldSize) of each batch; default: 0 of 1. */
  rank?: number | undefined;
  worldSize?: number | undefined;
  /** `state` of an earlier batch: the stream goes on after it. */
  state?: string | undefined;
  /** Threads that tokenize; default: all processors. Changes speed, never content. */
  threads?: number | undefined;
}

/** Row-major `rows × sequenceLength` token ids. Sequence k of the stream has inputs [kT, kT + T), targets one on. */
export interface LoaderBatch {
  inputs: Uint32Array;
  /** `0xFFFFFFFF` past the end of a finite stream: counts for nothing. */
  targets: Uint32Array;
  /** Targets that count. */
  counted: number;
  /** JSON; a loader made with it goes on after this batch. */
  state: string;
  /** Rolling hash over every target so far, of all ranks; 16 hexadecimal digits. */
  hash: string;
}

/** What the loader holds in memory and has read. */
export interface LoaderStats {
  /** Bytes of text in frames and windows now, and at most so far. */
  text_bytes: number;
  text_bytes_peak: number;
  /** Bytes of encoded tokens, the ring included. */
  token_bytes: number;
  /** Rows received so far, prefetched ones included. */
  rows_read: number;
  /** Bytes of text received so far. */
  bytes_read: number;
}

/**
 * Shuffled, packed batches of a corpus, resumable from any of them at the exact next token.
 *
 * Passes over the corpus and `maxSamples` are the corpus's. One loader is iterated once; make another to begin again.
 */
export class StreamingTextDataLoader implements AsyncIterable<LoaderBatch>, AsyncDisposable {
  readonly #corpus: StreamingCorpus;
  readonly #tokenizer: Tokenizer;
  readonly #options: LoaderOptions;
  #feed: NativeFeed | null = null;
  #begun = false;

  /** Throws CONFIG_INVALID for sizes that make no batch. */
  constructor(corpus: StreamingCorpus, tokenizer: Tokenizer, options: LoaderOptions) {
    for (const name of ['batchSize', 'sequenceLength', 'shuffleBufferSize', 'worldSize'] as const) {
      const value = options[name];
      if (value !== undefined && !(Number.isSafeInteger(value) && value > 0)) {
        throw errorFor('CONFIG_INVALID', `${name} is ${value}`, 'give a whole number above 0');
      }
    }
    this.#corpus = corpus;
    this.#tokenizer = tokenizer;
    this.#options = options;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<LoaderBatch, void, undefined> {
    if (this.#begun) {
      throw errorFor('USAGE', 'this loader was iterated already', 'make a new loader, with `state` to go on');
    }
    this.#begun = true;
    const { sources, release } = await this.#corpus.open();
    try {
      const feed = native().createFeed(this.#feedOptions(sources), linksOf(sources), this.#tokenizer.native);
      this.#feed = feed;
      for (;;) {
        const batch = await feed.nextBatch();
        if (batch === null) return;
        yield batch;
      }
    } finally {
      await this.close();
      release();
    }
  }

  /** What this loader holds and has read; null before the first batch was asked for. */
  stats(): LoaderStats | null {
    return this.#feed === null ? null : (JSON.parse(this.#feed.stats()) as LoaderStats);
  }

  /** Ends the loader; the corpus stays open. */
  async close(): Promise<void> {
    await this.#feed?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #feedOptions(sources: readonly OpenSource[]) {
    const { batchSize, sequenceLength, shuffleBufferSize = 10_000, seed = 1 } = this.#options;
    const { rank = 0, worldSize = 1, threads = availableParallelism(), state } = this.#options;
    return {
      sources: feedSources(sources),
      order: 'shuffled' as const,
      seed,
      shuffle_buffer_size: shuffleBufferSize,
      batch_size: this.#corpus.batchSize,
      epochs: this.#corpus.epochs,
      max_samples: this.#corpus.maxSamples,
      threads,
      batches: { rows: batchSize, sequence_length: sequenceLength, rank, world_size: worldSize },
      ...(state === undefined ? {} : { state }),
    };
  }
}
