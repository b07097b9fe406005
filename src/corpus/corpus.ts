/** What every corpus has in common, whatever its documents come from. */
import { type CandlewickError, errorFor } from '../errors.js';
import type { FeedLink, FeedOptions, FeedSource, HeldOutEnd, Place } from '../native/binding.js';
import { native } from '../native/index.js';
import type { ReadyMessage } from './messages.js';

/** What makes a source this one and no other: part of the state of a stream, compared when it goes on. */
export type SourceIdentity = Record<string, string | null | readonly string[]>;

/** What happens when a source of several has been read as often as it may be. */
export type OnExhausted = 'repeat' | 'stop' | 'drop';

/** One source of an open corpus, to be read natively. */
export interface OpenSource {
  link: FeedLink;
  ready: ReadyMessage;
  identity: SourceIdentity;
  /** Share of the tokens, relative to the other sources. */
  weight: number;
  on_exhausted: OnExhausted;
}

/** An open corpus, for the parts of this package that read it natively. */
export interface OpenCorpus {
  /** One, but for a mixture. */
  sources: readonly OpenSource[];
  /** Says that this user is done. */
  release(): void;
}

/** A stream of documents: what loaders, tokenizers and trainers read. */
export interface StreamingCorpus extends AsyncDisposable {
  /** What messages call it. */
  readonly dataset: string;
  /** Documents fetched at a time, and the length of the arrays that `batches()` yields. */
  readonly batchSize: number;
  /** Documents in all; null: no limit. */
  readonly maxSamples: number | null;
  /** Passes; null: no limit. */
  readonly epochs: number | null;
  /** Every document in its source's own order, null and empty ones left out. */
  stream(): AsyncGenerator<string, void, undefined>;
  /** The same documents in arrays of `batchSize`; the last may be shorter. */
  batches(): AsyncGenerator<string[], void, undefined>;
  /** Opens it to be read natively. Call `release` on what it returns, or `close()`, when done. */
  open(): Promise<OpenCorpus>;
  /** Ends every stream of this corpus and its processes. Resolves when they are gone. */
  close(): Promise<void>;
}

const documentsAtATime = 256;

/** The documents of a corpus, one by one. */
export async function* streamOf(corpus: StreamingCorpus): AsyncGenerator<string, void, undefined> {
  for await (const documents of read(corpus, documentsAtATime)) yield* documents;
}

/** The documents of a corpus in arrays of its `batchSize`. */
export async function* batchesOf(corpus: StreamingCorpus): AsyncGenerator<string[], void, undefined> {
  const { batchSize } = corpus;
  let batch: string[] = [];
  for await (const documents of read(corpus, batchSize)) {
    batch.push(...documents);
    while (batch.length >= batchSize) {
      yield batch.slice(0, batchSize);
      batch = batch.slice(batchSize);
    }
  }
  if (batch.length > 0) yield batch;
}

async function* read(corpus: StreamingCorpus, atATime: number): AsyncGenerator<string[], void, undefined> {
  if (corpus.maxSamples === 0 || corpus.epochs === 0) return;
  const { sources, release } = await corpus.open();
  try {
    const feed = native().createFeed(fileOrder(corpus, sources), linksOf(sources));
    try {
      for (;;) {
        const documents = await feed.nextDocuments(atATime);
        if (documents === null) return;
        yield documents;
      }
    } finally {
      await feed.close();
    }
  } finally {
    release();
  }
}

function fileOrder(corpus: StreamingCorpus, sources: readonly OpenSource[]): FeedOptions {
  return {
    sources: feedSources(sources),
    order: 'file',
    seed: 0,
    shuffle_buffer_size: 1,
    batch_size: corpus.batchSize,
    epochs: corpus.epochs,
    max_samples: corpus.maxSamples,
    threads: 1,
  };
}

/**
 * Sources as a feed wants them. `heldOut` says where the held-out part of each ends; `after`, in file order, the row
 * that the only source goes on behind.
 */
export function feedSources(
  sources: readonly (Omit<OpenSource, 'ready'> & { ready: Pick<ReadyMessage, 'files' | 'row_groups'> })[],
  heldOut: readonly HeldOutEnd[] = [],
  after: Place | null = null,
): FeedSource[] {
  return sources.map(({ identity, on_exhausted, ready, weight }, i) => ({
    files: ready.files,
    row_groups: ready.row_groups,
    weight,
    on_exhausted,
    held_out: heldOut[i] ?? null,
    after,
    identity,
  }));
}

/** What a feed reads its sources through, in their order. */
export function linksOf(sources: readonly Pick<OpenSource, 'link'>[]): FeedLink[] {
  return sources.map(({ link }) => link);
}

/** A whole number above 0. */
export function positive(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw usage(`${name} is ${value}`, 'give a whole number above 0');
}

/** A whole number, or null for no limit. */
export function limit(name: string, value: number | null): number | null {
  if (value === null || value === Number.POSITIVE_INFINITY) return null;
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw usage(`${name} is ${value}`, 'give a whole number, or null for no limit');
}

/** A corpus that was called wrongly. */
export function usage(message: string, hint: string): CandlewickError {
  return errorFor('USAGE', message, hint);
}

/** A corpus whose signal was aborted. */
export function aborted(signal: AbortSignal): CandlewickError {
  return errorFor(
    'ABORTED',
    'reading was aborted by its signal',
    'start again to read from the beginning',
    signal.reason,
  );
}

/** An action that happens at its first call only. */
export function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) action();
    done = true;
  };
}
