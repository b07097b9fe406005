import { gzipSync } from 'node:zlib';
import { feedSources } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type { HeldOutEnd, NativeBinding, NativeHeldOut, NativeTokenizer } from '../native/binding.js';
import type { OpenSource } from './source.js';

/** Documents to evaluate on, which are never trained on, and what simple compressors make of them. */
export interface HeldOut {
  native: NativeHeldOut;
  /** Where each source's held-out part ends; empty for data that is not trained on. */
  ends: HeldOutEnd[];
  documents: number;
  /** UTF-8 bytes. */
  bytes: number;
  /** What the tokens' own unigram distribution gives. */
  unigramBitsPerByte: number;
  /** What `gzip -9` gives. */
  gzipBitsPerByte: number;
}

/** Largest share of a finite source that may be held out. */
const LARGEST_SHARE = 0.05;

/**
 * Reads the first `documents` non-empty documents of each source. Throws CONFIG_INVALID when that is too much of one.
 */
export async function holdOut(
  binding: NativeBinding,
  sources: readonly OpenSource[],
  tokenizer: NativeTokenizer,
  options: { documents: number; batchSize: number; threads: number; signal?: AbortSignal | undefined },
): Promise<HeldOut> {
  const { documents } = options;
  const names = sources.map(({ ready }, i) =>
    sources.length === 1 ? null : `sources[${i}] (${ready.dataset})`,
  );
  sources.forEach(({ ready: { total_rows: rows } }, i) => {
    if (rows !== null && documents > rows * LARGEST_SHARE) throw tooMany(documents, rows, names[i]);
  });
  const parts: NativeHeldOut[] = [];
  for (const [i, source] of sources.entries()) {
    const part = await collect(binding, source, tokenizer, options);
    if (part.documents() < documents) throw tooMany(documents, part.documents(), names[i]);
    parts.push(part);
  }
  const [first] = parts;
  return measured(first !== undefined && parts.length === 1 ? first : binding.joinHeldOut(parts));
}

/** Reads at most the first `documents` non-empty documents of data that is not trained on. Throws DATASET_EMPTY. */
export async function readApart(
  binding: NativeBinding,
  source: OpenSource,
  tokenizer: NativeTokenizer,
  options: Parameters<typeof holdOut>[3],
): Promise<HeldOut> {
  const native = await collect(binding, source, tokenizer, options);
  if (native.documents() === 0) {
    const { dataset, split } = source.ready;
    throw errorFor(
      'DATASET_EMPTY',
      `${dataset}, split ${split}, has no document to evaluate on`,
      'check evaluation.dataset, evaluation.split and evaluation.text_column',
    );
  }
  return { ...measured(native), ends: [] };
}

function measured(native: NativeHeldOut): HeldOut {
  const bytes = native.bytes();
  return {
    native,
    ends: native.ends(),
    documents: native.documents(),
    bytes,
    unigramBitsPerByte: native.unigramBitsPerByte(),
    gzipBitsPerByte: (8 * gzipSync(native.text(), { level: 9 }).length) / bytes,
  };
}

async function collect(
  binding: NativeBinding,
  source: OpenSource,
  tokenizer: NativeTokenizer,
  { documents, batchSize, threads, signal }: Parameters<typeof holdOut>[3],
): Promise<NativeHeldOut> {
  const feed = binding.createFeed(
    {
      sources: feedSources([source]),
      order: 'file',
      seed: 0,
      shuffle_buffer_size: 1,
      batch_size: Math.min(batchSize, documents),
      epochs: 1,
      max_samples: documents,
      threads,
    },
    [source.link],
    tokenizer,
  );
  const abort = () => void feed.close();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    return await binding.collectHeldOut(feed, tokenizer);
  } finally {
    signal?.removeEventListener('abort', abort);
    await feed.close();
  }
}

function tooMany(documents: number, rows: number, source: string | null | undefined) {
  return errorFor(
    'CONFIG_INVALID',
    `evaluation.documents is ${documents}, more than 5 % of the ${rows} documents of ${source ?? 'the dataset'}`,
    `set evaluation.documents to ${Math.floor(rows * LARGEST_SHARE)} or less`,
  );
}
