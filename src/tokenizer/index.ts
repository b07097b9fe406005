/** Byte-level BPE tokenizers: load, train, encode, decode. */
import { availableParallelism } from 'node:os';
import { setImmediate as breathe } from 'node:timers/promises';
import { types } from 'node:util';
import type { StreamingCorpus } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type { NativeEncoded, NativeTokenizer, NativeTokenizerTrainer } from '../native/binding.js';
import { native } from '../native/index.js';
import { createTokenizerTrainer, saveTokenizer, trainTokenizer } from '../run/index.js';
import { DecodeStream, toIds } from './decode-stream.js';
import type { Ids } from './decode-stream.js';
import { inspect } from './quality.js';
import type { InspectOptions, TokenizerReport } from './quality.js';
import { isCorpus } from './source.js';
import type { Text, TextSource } from './source.js';

export { DecodeStream } from './decode-stream.js';
export type { Ids } from './decode-stream.js';
export { sampleOfStream } from './quality.js';
export type {
  Compression,
  IdList,
  InspectOptions,
  NamedToken,
  SampleQuality,
  ScriptQuality,
  TokenizerComparison,
  TokenizerFacts,
  TokenizerReport,
} from './quality.js';
export type { Text, TextSource } from './source.js';

/** How text is cut into words before merging. */
export type Pattern = 'gpt2' | 'cl100k' | 'o200k' | 'llama3' | 'qwen2';

/** What `Tokenizer.train` makes, and of how much text. */
export interface TokenizerTrainOptions {
  /** Tokens in all: special tokens, 256 bytes, and merges. */
  vocabSize: number;
  /** Default: `gpt2`. */
  pattern?: Pattern | undefined;
  /** Get the first ids, in this order; default: `<|endoftext|>`. */
  specialTokens?: readonly string[] | undefined;
  /** Documents to count; default: no limit. */
  maxSamples?: number | null | undefined;
  /** The least number of occurrences that makes a pair of tokens a token; default: any. */
  minFrequency?: number | undefined;
  /** Tokens stay shorter than this, in bytes; pairs of bytes are always allowed. Default: no limit. */
  maxTokenLength?: number | null | undefined;
  /** Go on from this tokenizer: its tokens keep their ids, its merges come first, what is learned is appended. */
  seedTokenizer?: Tokenizer | undefined;
  /**
   * A file of counts to begin with, as {@link TokenizerTrainOptions.saveCounts} wrote it: with no documents (`[]`) it
   * gives another vocabulary of the same text, with more documents one of all. Its pattern must be `pattern`.
   */
  counts?: string | undefined;
  /** A file to write the counts of all documents into. */
  saveCounts?: string | undefined;
  /**
   * Bytes that training holds at most, the documents handed in apart; default: 2 GB. Counts past it go to disk; words
   * that cannot be merged within it are OUT_OF_MEMORY_HOST. It never changes the result.
   */
  memoryLimit?: number | undefined;
  /** Where counts past the limit go until the training ends; default: the system's directory for temporary files. */
  spillDirectory?: string | undefined;
  /** Accepted for symmetry and without effect: documents are counted in file order, so nothing is random. */
  seed?: number | undefined;
  /** Aborting it ends the training with `ABORTED`. */
  signal?: AbortSignal | undefined;
  /** Told about progress a few times a second. */
  onProgress?: ((progress: TokenizerProgress) => void) | undefined;
}

/** How far training a tokenizer is. */
export interface TokenizerProgress {
  /** Documents counted. */
  documents: number;
  /** UTF-8 bytes counted. */
  bytes: number;
  /** Merges found, of `target`. */
  merges: number;
  target: number;
  /** Seconds since the start. */
  seconds: number;
}

/** How a text is encoded. */
export interface EncodeOptions {
  /** Whether special tokens in it are recognised; default: true. */
  special?: boolean | undefined;
}

/** How many texts are encoded. */
export interface EncodeBatchOptions {
  /** Threads that encode; default: all processors. */
  threads?: number | undefined;
  /** Ids of an earlier `encodeBatch` that nobody needs any more. Arrays with other buffers are left as they are. */
  reuse?: readonly Uint32Array[] | undefined;
}

/** Documents handed to the native counter at a time. */
const BATCH = 1000;

/** A byte-level BPE tokenizer in Hugging Face's format. */
export class Tokenizer {
  /** The native tokenizer, for the parts of this package. */
  readonly native: NativeTokenizer;

  /** Use {@link Tokenizer.fromFile} or {@link Tokenizer.train}. */
  constructor(handle: NativeTokenizer) {
    this.native = handle;
  }

  /** Loads a directory with a `tokenizer.json`, or such a file. Throws TOKENIZER_INVALID. */
  static async fromFile(path: string): Promise<Tokenizer> {
    return new Tokenizer(await native().tokenizerFromPath(path));
  }

  /**
   * Learns a tokenizer from text. Neither the order of the documents nor threads nor memory change the result. Throws
   * VOCAB_TOO_LARGE when the text supports fewer tokens, ABORTED, OUT_OF_MEMORY_HOST and DISK_FULL.
   */
  static async train(source: TextSource, options: TokenizerTrainOptions): Promise<Tokenizer> {
    return new Tokenizer(
      await (isCorpus(source) ? trainOnCorpus(source, options) : trainOnTexts(source, options)),
    );
  }

  /** The largest id plus one. */
  get vocabSize(): number {
    return this.native.vocabSize();
  }

  /** The token that closes a document. Throws TOKENIZER_INVALID for a tokenizer without one. */
  get endOfText(): { id: number; token: string } {
    return this.native.endOfText();
  }

  /** SHA-256, in hex, over what determines ids. */
  get digest(): string {
    return this.native.digest();
  }

  /**
   * Ids of a text; nothing is added. Special tokens in it are recognised; with `special: false` their spelling is plain
   * text, as in the documents of training. Throws TOKENIZER_INVALID where a file that our own encoder does not serve
   * (`outside_registry` of `inspect`) has no ids for the text.
   */
  encode(text: Text, options: EncodeOptions = {}): Uint32Array {
    return (options.special ?? true)
      ? this.native.encode(checked(text))
      : this.native.encodeDocument(checked(text));
  }

  /**
   * The ids of `encode`, and where each comes from: `offsets[2 * i]` and `offsets[2 * i + 1]` are start and end of
   * `ids[i]`. For a string they are its own indices (UTF-16 units), so that `text.slice(start, end)` is the token's
   * text; for bytes they are positions in the bytes. They are whole characters: tokens that share a character all
   * cover it; marks that NFC composes (pattern `qwen2`) are in none, as in the `tokenizers` library. Throws as `encode`.
   */
  encodeWithOffsets(text: Text, options: EncodeOptions = {}): { ids: Uint32Array; offsets: Uint32Array } {
    return this.native.encodeWithOffsets(checked(text), options.special ?? true);
  }

  /**
   * Ids of many texts, in their order, on `threads` threads (default: all processors). Each thread remembers up to
   * 64 MiB of words from call to call, and they tell each other of new ones, of which 8 MiB are kept for that.
   *
   * Bytes are read where they are: until the promise settles, do not transfer their buffers to another thread, and what is
   * written to them may or may not be seen. The arrays are views of a few large buffers, each of which lives as long
   * as one of its views; `slice()` makes a copy of its own. A loop that needs the ids of one batch no longer when it asks
   * for the next hands them in as `reuse`: their memory is written again at once, and not when the garbage collector
   * has come by. They are empty afterwards, and so is everything else that looks at their buffers.
   */
  async encodeBatch(texts: readonly Text[], options: EncodeBatchOptions = {}): Promise<Uint32Array[]> {
    const { threads = availableParallelism(), reuse = [] } = options;
    const { lists, parts } = await this.native.encodeBatch(fixed(texts), threads, buffersOf(reuse));
    const arrays: Uint32Array[] = [];
    for (let at = 0; at < parts.length; at += 3) {
      const [list = 0, from = 0, to = 0] = parts.subarray(at, at + 3);
      addViews(arrays, lists[list] as NativeEncoded, from, to);
    }
    return arrays;
  }

  /** Text of ids. What is not valid UTF-8 becomes U+FFFD; an id outside the vocabulary adds nothing. */
  decode(ids: Ids, options: { skipSpecial?: boolean } = {}): string {
    return this.native.decode(toIds(ids), options.skipSpecial ?? false);
  }

  /** A decoder for ids as they come: never half a character. */
  decodeStream(options: { skipSpecial?: boolean } = {}): DecodeStream {
    return new DecodeStream(this.native.decodeStream(options.skipSpecial ?? false));
  }

  /**
   * What this tokenizer is, and how it does on text: compression, fertility by script, unused tokens. Without a source
   * the first alone. Throws ABORTED, DATASET_EMPTY, and what the source throws.
   */
  inspect(source: TextSource | null = null, options: InspectOptions = {}): Promise<TokenizerReport> {
    return inspect(this.native, source, options);
  }

  /**
   * Writes `tokenizer.json`, `vocab.json`, `merges.txt`, `tokenizer_config.json`, `special_tokens_map.json`,
   * `tokenizer_manifest.json` and, where tiktoken gives the same ids, `tokenizer.tiktoken`; all of them or none. Throws
   * NOT_WRITABLE and DISK_FULL.
   */
  async save(directory: string): Promise<void> {
    await saveTokenizer(this.native, directory);
  }
}

/**
 * Does `work` for some of so many at a time. A function that is called several times is compiled once; where it is one long
 * loop, the middle of that is compiled, too: on a core that should encode.
 */
function someAtATime(count: number, work: (from: number, to: number) => void): void {
  for (let at = 0; at < count; at += 256) work(at, Math.min(at + 256, count));
}

/** The buffers of arrays, of which those of one buffer follow each other. */
function buffersOf(arrays: readonly Uint32Array[]): ArrayBuffer[] {
  const buffers = new Set<ArrayBuffer>();
  someAtATime(arrays.length, (from, to) => addBuffers(buffers, arrays, from, to));
  return [...buffers];
}

function addBuffers(
  buffers: Set<ArrayBuffer>,
  arrays: readonly Uint32Array[],
  from: number,
  to: number,
): void {
  let last: ArrayBufferLike | undefined;
  for (let at = from; at < to; at++) {
    const buffer = arrays[at]?.buffer;
    if (buffer === last) continue;
    last = buffer;
    if (buffer instanceof ArrayBuffer && buffer.byteLength > 0) buffers.add(buffer);
  }
}

/** Adds an array for each text of a list from number `from` on and before `to`: its part of the ids, up to its end. */
function addViews(arrays: Uint32Array[], { ends, ids }: NativeEncoded, from: number, to: number): void {
  const { buffer } = ids;
  let start = from === 0 ? 0 : (ends[from - 1] as number);
  for (let at = from; at < to; at++) {
    const end = ends[at] as number;
    arrays.push(new Uint32Array(buffer, start * 4, end - start));
    start = end;
  }
}

/** An array of its own of the texts, with copies of bytes whose memory may change its size or belongs to several threads. */
function fixed(texts: readonly Text[]): Text[] {
  const own = texts.slice();
  someAtATime(own.length, (from, to) => fix(own, from, to));
  return own;
}

function fix(texts: Text[], from: number, to: number): void {
  for (let at = from; at < to; at++) {
    const text = texts[at];
    if (typeof text !== 'string' && !isFixed(text?.buffer)) copy(texts, at);
  }
}

function copy(texts: Text[], at: number): void {
  const text = texts[at];
  // What is no text at all is left for the native side to refuse.
  if (types.isUint8Array(text)) texts[at] = text.slice();
}

/** Whether a buffer keeps its size and belongs to one thread: others say otherwise, or do not say. */
function isFixed(buffer: unknown): boolean {
  return (buffer as { resizable?: boolean } | undefined)?.resizable === false;
}

/** Programs without types may pass anything. */
function checked(text: Text): Text {
  if (typeof text === 'string' || text instanceof Uint8Array) return text;
  throw errorFor('USAGE', `a text is a string or a Uint8Array, not ${typeof text}`, 'convert it first');
}

function resolved(options: TokenizerTrainOptions) {
  const { vocabSize, pattern = 'gpt2', specialTokens = ['<|endoftext|>'], seedTokenizer } = options;
  const { minFrequency, maxTokenLength, memoryLimit, spillDirectory } = options;
  const fixed = seedTokenizer?.vocabSize ?? 256 + specialTokens.length;
  return {
    vocabSize,
    pattern,
    specialTokens,
    seed: seedTokenizer?.native,
    limits: { minFrequency, maxTokenLength, memoryLimit, spillDirectory },
    target: Math.max(0, vocabSize - fixed),
  };
}

async function trainOnCorpus(
  corpus: StreamingCorpus,
  options: TokenizerTrainOptions,
): Promise<NativeTokenizer> {
  const { target: _, ...training } = resolved(options);
  const limits = [options.maxSamples, corpus.maxSamples].filter((limit) => typeof limit === 'number');
  const { sources, release } = await corpus.open();
  try {
    return await trainTokenizer(native(), sources, {
      ...training,
      counts: options.counts,
      saveCounts: options.saveCounts,
      maxSamples: limits.length > 0 ? Math.min(...limits) : null,
      batchSize: corpus.batchSize,
      threads: availableParallelism(),
      heldOut: [],
      signal: options.signal,
      onProgress: ({ documents, bytes, merges, target, seconds }) =>
        options.onProgress?.({ documents, bytes, merges, target, seconds }),
    });
  } finally {
    release();
  }
}

async function trainOnTexts(
  texts: AsyncIterable<Text> | Iterable<Text>,
  options: TokenizerTrainOptions,
): Promise<NativeTokenizer> {
  const { target, ...training } = resolved(options);
  const trainer = createTokenizerTrainer(native(), training);
  const began = performance.now();
  const report = () => {
    const counts = JSON.parse(trainer.progress()) as Omit<TokenizerProgress, 'target' | 'seconds'>;
    options.onProgress?.({ ...counts, target, seconds: (performance.now() - began) / 1000 });
  };
  const timer = setInterval(report, 250);
  const abort = () => trainer.abort();
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    if (options.counts !== undefined) await trainer.loadCounts(options.counts);
    await countTexts(trainer, texts, options);
    if (options.saveCounts !== undefined) await trainer.saveCounts(options.saveCounts);
    const tokenizer = await trainer.finish();
    report();
    return tokenizer;
  } catch (cause) {
    throw options.signal?.aborted === true ? stopped(options.signal.reason) : cause;
  } finally {
    clearInterval(timer);
    options.signal?.removeEventListener('abort', abort);
  }
}

function stopped(reason: unknown): Error {
  return errorFor('ABORTED', 'stopped while the tokenizer was trained', 'call train again', reason);
}

async function countTexts(
  trainer: NativeTokenizerTrainer,
  texts: AsyncIterable<Text> | Iterable<Text>,
  { maxSamples = null, signal }: TokenizerTrainOptions,
): Promise<void> {
  let batch: Text[] = [];
  let left = maxSamples ?? Number.POSITIVE_INFINITY;
  const flush = async () => {
    if (signal?.aborted) throw stopped(signal.reason);
    await trainer.count(batch);
    batch = [];
    // A source that never waits must not keep timers and signals from running.
    await breathe();
  };
  for await (const text of texts) {
    if (left <= 0) break;
    if (text.length === 0) continue;
    left -= 1;
    batch.push(text);
    if (batch.length === BATCH) await flush();
  }
  await flush();
}
