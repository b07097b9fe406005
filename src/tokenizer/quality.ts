import { setImmediate as breathe } from 'node:timers/promises';
import { feedSources, linksOf } from '../corpus/index.js';
import type { OpenSource } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type { NativeQualitySample, NativeTokenizer } from '../native/binding.js';
import { native } from '../native/index.js';
import type { OpenSource as RunSource } from '../run/index.js';
import { isCorpus } from './source.js';
import type { Text, TextSource } from './source.js';

/** An id and its spelling. */
export interface NamedToken {
  id: number;
  text: string;
}

/** Some ids of many. */
export interface IdList {
  count: number;
  /** Of how many. */
  of: number;
  /** `count / of`. */
  share: number;
  /** The first 20. */
  first: number[];
}

/** What a tokenizer is, whatever the text. */
export interface TokenizerFacts {
  /** Who serves the file: our own encoder, or the `tokenizers` crate. */
  encoder: 'candlewick' | 'tokenizers';
  /** The pattern that our encoder splits by. */
  pattern: string | null;
  /** Why our encoder does not serve the file, in words. */
  outside_registry: string | null;
  /** The version of Unicode that the pattern's classes are of; null where the `tokenizers` crate serves the file. */
  unicode: string | null;
  /** The normalizer as the file names it. */
  normalizer: string | null;
  /** The largest id plus one. */
  vocab_size: number;
  /** Merges of a BPE model. */
  merges: number | null;
  special_tokens: NamedToken[];
  /** Added tokens that are not special. */
  added_tokens: NamedToken[];
  end_of_text: NamedToken | null;
  /**
   * The self-encoding check: tokens whose own bytes merge into something else, so that no text gives them; `of` all
   * that are not added. Null where the `tokenizers` crate serves the file.
   */
  unreachable: IdList | null;
  /** Why no rank file for tiktoken gives the same ids; null where `save` writes one that does. */
  no_rank_file: string | null;
  /** SHA-256 over what determines ids. */
  digest: string;
}

/** What becomes of the text of one script. A token belongs to the script of its first character that has one. */
export interface ScriptQuality {
  /** Unicode's name of the script, or `digits`, or `punctuation, symbols and spaces`. */
  script: string;
  /** UTF-8 bytes of its characters, and their share of the sample. */
  bytes: number;
  byte_share: number;
  characters: number;
  /** What white space sets apart and begins in this script; null for scripts that set no spaces between words. */
  words: number | null;
  tokens: number;
  /** Tokens of the vocabulary that belong to it. */
  vocabulary: number;
  tokens_per_character: number;
  tokens_per_word: number | null;
}

/** What a tokenizer makes of a sample. */
export interface SampleQuality {
  /** Documents, without empty ones. */
  documents: number;
  /** UTF-8 bytes, code points, and words (what white space sets apart). */
  bytes: number;
  characters: number;
  words: number;
  /** Without end-of-text; a special token's spelling in a document is plain text, as in training. */
  tokens: number;
  bytes_per_token: number;
  /** Every token counts, those of punctuation and line breaks too. */
  tokens_per_word: number;
  /** Tokens of one byte, such as `a` or a line break, and their share of the tokens. */
  single_byte_tokens: number;
  single_byte_share: number;
  /** Tokens that are not whole characters: they spell what the vocabulary lacks. */
  partial_character_tokens: number;
  partial_character_share: number;
  /** Documents that decode to themselves (to their NFC, where the tokenizer normalizes). */
  lossless_documents: number;
  /** Most bytes first. */
  scripts: ScriptQuality[];
  /** The longest tokens; what does not print is escaped, bytes that are not UTF-8 as `\xNN`. */
  longest: (NamedToken & { bytes: number; count: number })[];
  /** Tokens that the sample never gave, added ones aside. */
  unreached: IdList;
}

/** Compression of the first 8 MiB of the sample. */
export interface Compression {
  bytes: number;
  tokens: number;
  bytes_per_token: number;
}

/** Another tokenizer on the same text. */
export interface TokenizerComparison extends Compression {
  name: string;
  vocab_size: number;
  /** Both with vocabularies of one size, the larger one cut to it; null where it cannot be cut. */
  same_size: { vocab_size: number; bytes_per_token: number; peer_bytes_per_token: number } | null;
}

/** What `inspect` finds. */
export interface TokenizerReport {
  tokenizer: TokenizerFacts;
  /** Null without text. */
  sample: SampleQuality | null;
  /** Compression with the first 1,024 tokens, twice as many, and so on; only the whole where it cannot be cut. */
  by_vocab_size: (Compression & { vocab_size: number })[];
  comparisons: TokenizerComparison[];
}

/** How a tokenizer is inspected. */
export interface InspectOptions {
  /** Documents to read at most; default: no limit. */
  maxSamples?: number | null | undefined;
  /** Other tokenizers to compress the same text with, by name. */
  compareWith?: Readonly<Record<string, { readonly native: NativeTokenizer }>> | undefined;
  /** Aborting it ends the inspection with `ABORTED`. */
  signal?: AbortSignal | undefined;
}

/** A batch for the native side is full at so many documents, or at so many characters. */
const BATCH = { documents: 4096, length: 16 << 20 };

/** Measures a tokenizer on text; without any, says what it is. Throws ABORTED, and what the source throws. */
export async function inspect(
  tokenizer: NativeTokenizer,
  source: TextSource | null,
  { maxSamples = null, compareWith = {}, signal }: InspectOptions = {},
): Promise<TokenizerReport> {
  const check = () => throwIfAborted(signal);
  check();
  const report: TokenizerReport = {
    tokenizer: JSON.parse(await tokenizer.facts()) as TokenizerFacts,
    sample: null,
    by_vocab_size: [],
    comparisons: [],
  };
  if (source === null) return report;
  const sample = tokenizer.qualitySample();
  check();
  if (isCorpus(source)) {
    const limits = [maxSamples, source.maxSamples].filter((limit) => limit !== null);
    const { sources, release } = await source.open();
    try {
      await consume(sample, sources, limits.length > 0 ? Math.min(...limits) : null, signal);
    } finally {
      release();
    }
  } else {
    await countTexts(sample, source, maxSamples ?? Number.POSITIVE_INFINITY, check);
  }
  check();
  report.sample = JSON.parse(await sample.report()) as SampleQuality;
  if (report.sample.documents === 0) {
    const hint = 'give a sample with at least one text that is not empty';
    throw errorFor('DATASET_EMPTY', 'the sample has no text', hint);
  }
  check();
  report.by_vocab_size = JSON.parse(await sample.byVocabSize()) as TokenizerReport['by_vocab_size'];
  for (const [name, { native: peer }] of Object.entries(compareWith)) {
    check();
    const found = JSON.parse(await sample.compare(peer)) as Omit<TokenizerComparison, 'name'>;
    report.comparisons.push({ name, ...found });
  }
  check();
  return report;
}

/** The first documents of a stream that is open, in file order: text does not enter JavaScript. */
export async function sampleOfStream(
  tokenizer: NativeTokenizer,
  sources: readonly (OpenSource | RunSource)[],
  documents: number,
  signal?: AbortSignal,
): Promise<SampleQuality> {
  const sample = tokenizer.qualitySample();
  await consume(sample, sources, documents, signal);
  return JSON.parse(await sample.report()) as SampleQuality;
}

async function consume(
  sample: NativeQualitySample,
  sources: readonly (OpenSource | RunSource)[],
  maxSamples: number | null,
  signal?: AbortSignal,
): Promise<void> {
  const feed = native().createFeed(
    {
      sources: feedSources(sources),
      order: 'file',
      seed: 0,
      shuffle_buffer_size: 1,
      batch_size: 1000,
      epochs: 1,
      max_samples: maxSamples,
      threads: 1,
    },
    linksOf(sources),
  );
  const abort = () => void feed.close();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    throwIfAborted(signal);
    await sample.consume(feed);
  } catch (cause) {
    throwIfAborted(signal);
    throw cause;
  } finally {
    signal?.removeEventListener('abort', abort);
    await feed.close();
  }
}

async function countTexts(
  sample: NativeQualitySample,
  texts: AsyncIterable<Text> | Iterable<Text>,
  limit: number,
  check: () => void,
): Promise<void> {
  let batch: Text[] = [];
  let length = 0;
  let left = limit;
  const flush = async () => {
    check();
    await sample.count(batch);
    [batch, length] = [[], 0];
    // A source that never waits must not keep timers and signals from running.
    await breathe();
  };
  for await (const text of texts) {
    if (left <= 0) break;
    if (text.length === 0) continue;
    left -= 1;
    batch.push(text);
    length += text.length;
    if (batch.length >= BATCH.documents || length >= BATCH.length) await flush();
  }
  await flush();
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw errorFor('ABORTED', 'stopped while the tokenizer was inspected', 'call inspect again', signal.reason);
}
