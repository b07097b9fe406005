import { gzipSync } from 'node:zlib';
import type { SourceIdentity } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type {
  FeedSource,
  HeldOutEnd,
  NativeBinding,
  NativeHeldOut,
  NativeTokenizer,
} from '../native/binding.js';
import type { OpenSource, SourceReady } from './source.js';

/** Documents that are never trained on, and what simple compressors make of them. */
export interface HeldOut {
  native: NativeHeldOut;
  /** Where each source's held-out part ends. */
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

/** Reads the first `documents` non-empty documents of a source. Throws CONFIG_INVALID when that is too much of it. */
export async function holdOut(
  binding: NativeBinding,
  source: Pick<OpenSource, 'link' | 'ready' | 'identity'>,
  tokenizer: NativeTokenizer,
  options: { documents: number; batchSize: number; threads: number; signal?: AbortSignal | undefined },
): Promise<HeldOut> {
  const { documents } = options;
  const rows = source.ready.total_rows;
  if (rows !== null && documents > rows * LARGEST_SHARE) throw tooMany(documents, rows);
  const feed = binding.createFeed(
    {
      sources: [feedSource(source, null)],
      order: 'file',
      seed: 0,
      shuffle_buffer_size: 1,
      batch_size: Math.min(options.batchSize, documents),
      epochs: 1,
      max_samples: documents,
      threads: options.threads,
    },
    [source.link],
    tokenizer,
  );
  const abort = () => void feed.close();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    const native = await binding.collectHeldOut(feed, tokenizer);
    if (native.documents() < documents) throw tooMany(documents, native.documents());
    const bytes = native.bytes();
    return {
      native,
      ends: native.ends(),
      documents: native.documents(),
      bytes,
      unigramBitsPerByte: native.unigramBitsPerByte(),
      gzipBitsPerByte: (8 * gzipSync(native.text(), { level: 9 }).length) / bytes,
    };
  } finally {
    options.signal?.removeEventListener('abort', abort);
    await feed.close();
  }
}

/** A source as a feed wants it. */
export function feedSource(
  { identity, ready }: { ready: SourceReady; identity?: SourceIdentity },
  heldOut: HeldOutEnd | null,
): FeedSource {
  const { files, row_groups, dataset, config_name, split, revision, text_column } = ready;
  const { text_template = null } = ready;
  return {
    files,
    row_groups,
    weight: 1,
    on_exhausted: 'drop',
    held_out: heldOut,
    identity: identity ?? { dataset, config_name, split, revision, text_column, text_template },
  };
}

function tooMany(documents: number, rows: number) {
  return errorFor(
    'CONFIG_INVALID',
    `evaluation.documents is ${documents}, more than 5 % of the ${rows} documents of the dataset`,
    `set evaluation.documents to ${Math.floor(rows * LARGEST_SHARE)} or less`,
  );
}
