import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { feedSources, linksOf } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type {
  CountedPlace,
  HeldOutEnd,
  NativeBinding,
  NativeFeed,
  NativeTokenizer,
  NativeTokenizerTrainer,
} from '../native/binding.js';
import { disk, exists, namesIn, onDisk } from './disk.js';
import type { SetupEvent } from './events.js';
import type { OpenSource } from './source.js';

/** How a tokenizer is trained from a stream. */
export interface TokenizerTraining {
  vocabSize: number;
  pattern: string;
  specialTokens: readonly string[];
  /** Documents to count; null: all of one epoch. */
  maxSamples: number | null;
  batchSize: number;
  threads: number;
  /** Where the held-out part of each source ends; empty: nothing is held out. */
  heldOut: readonly HeldOutEnd[];
  /** How merges are learned, and what memory that may take. */
  limits?: TrainerLimits | undefined;
  /** The tokenizer to go on from. */
  seed?: NativeTokenizer | null | undefined;
  /** File of counts to begin with. */
  counts?: string | null | undefined;
  /** File to write the counts into. */
  saveCounts?: string | null | undefined;
  /** Directory that keeps counts, so that a later call goes on where this one was stopped. For one source. */
  keepIn?: string | undefined;
  signal?: AbortSignal | undefined;
  /** Hears of documents that an earlier call counted. */
  onResume?: (documents: number) => void;
  /** Hears of progress about four times a second. */
  onProgress?: (event: SetupEvent & { type: 'tokenizer' }) => void;
}

/** What has a default that is the native side's. */
export interface TrainerLimits {
  /** The least number of occurrences that makes a pair a token. */
  minFrequency?: number | undefined;
  /** Tokens stay shorter than this, in bytes. */
  maxTokenLength?: number | null | undefined;
  /** Bytes that the trainer holds at most; counts past it go to disk. */
  memoryLimit?: number | undefined;
  /** Where they go. */
  spillDirectory?: string | undefined;
  /** Seconds between two commits of what is kept; default: 30. */
  commitEvery?: number | undefined;
}

const REPORT_MS = 250;

/** A trainer that has counted nothing. Throws CONFIG_INVALID, TOKENIZER_MISMATCH, TOKENIZER_INVALID. */
export function createTokenizerTrainer(
  binding: Pick<NativeBinding, 'createTokenizerTrainer'>,
  options: Pick<TokenizerTraining, 'vocabSize' | 'pattern' | 'specialTokens' | 'limits' | 'seed'>,
): NativeTokenizerTrainer {
  const { limits = {}, seed } = options;
  const trainer = binding.createTokenizerTrainer(
    JSON.stringify({
      vocab_size: options.vocabSize,
      pattern: options.pattern,
      special_tokens: options.specialTokens,
      min_frequency: limits.minFrequency,
      max_token_length: limits.maxTokenLength,
      memory_limit: limits.memoryLimit,
      spill_dir: limits.spillDirectory,
      commit_every: limits.commitEvery,
    }),
  );
  if (seed !== undefined && seed !== null) trainer.startFrom(seed);
  return trainer;
}

/**
 * Trains a tokenizer from sources, each in file order, or from counts alone. Throws VOCAB_TOO_LARGE, ABORTED,
 * CONFIG_INVALID for a stream that would never end, OUT_OF_MEMORY_HOST, DISK_FULL, and the sources' errors.
 */
export async function trainTokenizer(
  binding: NativeBinding,
  sources: readonly OpenSource[],
  options: TokenizerTraining,
): Promise<NativeTokenizer> {
  refuseEndless(sources, options.maxSamples);
  const { signal } = options;
  const trainer = createTokenizerTrainer(binding, options);
  const meter = new Meter(trainer, sources, options);
  let feed: NativeFeed | null = null;
  const abort = () => {
    trainer.abort();
    void feed?.close();
  };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    signal?.throwIfAborted();
    const kept = options.keepIn === undefined ? null : await trainer.keepIn(options.keepIn);
    const after = kept === null ? null : (JSON.parse(kept) as CountedPlace);
    if (after !== null) options.onResume?.(checked(after, options.maxSamples).documents);
    else if (typeof options.counts === 'string') await trainer.loadCounts(options.counts);
    signal?.throwIfAborted();
    meter.start(after?.documents ?? 0);
    if (sources.length > 0) {
      feed = createFeed(binding, sources, options, after);
      await trainer.consume(feed, after?.documents ?? 0);
      signal?.throwIfAborted();
    }
    if (typeof options.saveCounts === 'string') await trainer.saveCounts(options.saveCounts);
    const tokenizer = await trainer.finish();
    signal?.throwIfAborted();
    meter.report();
    return tokenizer;
  } catch (cause) {
    if (signal?.aborted !== true) throw cause;
    const hint =
      options.keepIn === undefined
        ? 'run the same command to begin again'
        : 'run the same command to go on from there';
    throw errorFor('ABORTED', 'stopped while the tokenizer was trained', hint, cause);
  } finally {
    meter.stop();
    signal?.removeEventListener('abort', abort);
    await feed?.close();
  }
}

/** Throws RESUME_MISMATCH when more documents were counted than there are to count now. */
function checked(after: CountedPlace, maxSamples: number | null): CountedPlace {
  if (maxSamples === null || after.documents <= maxSamples) return after;
  throw errorFor(
    'RESUME_MISMATCH',
    `${after.documents} documents were counted already, more than --max-samples ${maxSamples}`,
    'raise --max-samples, or delete the .partial directory beside the output to begin again',
  );
}

function createFeed(
  binding: NativeBinding,
  sources: readonly OpenSource[],
  options: TokenizerTraining,
  after: CountedPlace | null,
): NativeFeed {
  const { maxSamples } = options;
  const place = after === null ? null : { file: after.file, group: after.group, row: after.row };
  return binding.createFeed(
    {
      sources: feedSources(sources, options.heldOut, place),
      order: 'file',
      seed: 0,
      shuffle_buffer_size: 1,
      batch_size: options.batchSize,
      epochs: 1,
      max_samples: maxSamples === null ? null : Math.max(0, maxSamples - (after?.documents ?? 0)),
      threads: options.threads,
    },
    linksOf(sources),
  );
}

interface Reading {
  documents: number;
  bytes: number;
  merges: number;
  seconds: number;
}

/** Reports how far a trainer is. */
class Meter {
  readonly #trainer: NativeTokenizerTrainer;
  readonly #options: TokenizerTraining;
  #limit: number | null;
  readonly #began = performance.now();
  #first: Reading;
  /** When the merges began. */
  #merging: number | null = null;
  #timer: NodeJS.Timeout | undefined;

  constructor(trainer: NativeTokenizerTrainer, sources: readonly OpenSource[], options: TokenizerTraining) {
    this.#trainer = trainer;
    this.#options = options;
    const rows = sources.map(({ ready }) => ready.total_rows);
    const known =
      rows.length === 0 || rows.includes(null) ? null : rows.reduce<number>((a, b) => a + (b ?? 0), 0);
    const limits = [options.maxSamples, known].filter((limit) => limit !== null);
    this.#limit = limits.length === 0 ? null : Math.min(...limits);
    this.#first = this.#read();
  }

  /** What is counted until now was counted before: `before` documents of the stream, the others of saved counts. */
  start(before: number): void {
    this.#first = this.#read();
    if (this.#limit !== null) this.#limit += this.#first.documents - before;
    this.#timer = setInterval(() => this.report(), REPORT_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  report(): void {
    const now = this.#read();
    const { documents, bytes, merges, seconds } = now;
    if (merges > 0) this.#merging ??= seconds;
    const { vocabSize, seed, specialTokens } = this.#options;
    const target = Math.max(0, vocabSize - (seed?.vocabSize() ?? 256 + specialTokens.length));
    const elapsed = Math.max((this.#merging ?? seconds) - this.#first.seconds, 1e-9);
    const samplesPerSecond = (documents - this.#first.documents) / elapsed;
    this.#options.onProgress?.({
      type: 'tokenizer',
      documents,
      bytes,
      merges,
      target,
      limit: this.#limit,
      seconds,
      samples_per_second: samplesPerSecond,
      bytes_per_second: (bytes - this.#first.bytes) / elapsed,
      eta_seconds: this.#eta(now, target, samplesPerSecond),
    });
  }

  #eta({ documents, merges, seconds }: Reading, target: number, samplesPerSecond: number): number | null {
    if (this.#merging !== null && seconds > this.#merging)
      return ((target - merges) * (seconds - this.#merging)) / Math.max(merges, 1);
    if (this.#limit === null || samplesPerSecond <= 0) return null;
    return Math.max(0, this.#limit - documents) / samplesPerSecond;
  }

  #read(): Reading {
    const { documents = 0, bytes = 0, merges = 0 } = JSON.parse(this.#trainer.progress()) as Partial<Reading>;
    return { documents, bytes, merges, seconds: (performance.now() - this.#began) / 1000 };
  }
}

/** A source that repeats goes on until another stops the stream, or a limit does. */
function refuseEndless(sources: readonly OpenSource[], maxSamples: number | null): void {
  const policies = new Set(sources.map(({ on_exhausted }) => on_exhausted));
  if (maxSamples !== null || policies.has('stop') || !policies.has('repeat')) return;
  throw errorFor(
    'CONFIG_INVALID',
    'a tokenizer would be trained forever: sources repeat, none stops the stream, and there is no limit',
    'set tokenizer.train.max_samples (maxSamples), or on_exhausted: stop for a source',
  );
}

/** The rank file for tiktoken, which not every tokenizer has. */
const RANK_FILE = 'tokenizer.tiktoken';

/**
 * Saves a tokenizer so that `directory` holds all of it or none. Files of others that lie there stay. `extra` are
 * more JSON files to put beside it, `moved` files by their names in the directory, taken from where they are.
 */
export async function saveTokenizer(
  tokenizer: NativeTokenizer,
  directory: string,
  extra: Record<string, object> = {},
  moved: Record<string, string> = {},
): Promise<void> {
  await onDisk(directory, async () => {
    const temporary = `${directory}.tmp`;
    await mkdir(dirname(directory), { recursive: true });
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    try {
      await tokenizer.save(temporary);
      for (const [name, value] of Object.entries(extra)) {
        const path = join(temporary, name);
        // A file that the tokenizer wrote gets more keys.
        const before = (await exists(path)) ? (JSON.parse(await readFile(path, 'utf8')) as object) : {};
        await disk.writeFile(path, `${JSON.stringify({ ...before, ...value }, null, 2)}\n`);
      }
      for (const [name, path] of Object.entries(moved)) await rename(path, join(temporary, name));
      const names = await readdir(temporary);
      for (const name of names) await disk.sync(join(temporary, name));
      await disk.sync(temporary);
      if ((await namesIn(directory)).length === 0) {
        await rename(temporary, directory);
      } else {
        // One that another tokenizer left would give other ids.
        if (!names.includes(RANK_FILE)) await rm(join(directory, RANK_FILE), { force: true });
        // tokenizer.json last: a tokenizer is there when it is.
        for (const name of names.sort(
          (a, b) => Number(a === 'tokenizer.json') - Number(b === 'tokenizer.json'),
        )) {
          await rename(join(temporary, name), join(directory, name));
        }
      }
      await disk.sync(dirname(directory));
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  });
}

/** Whether a directory holds a tokenizer. */
export async function holdsTokenizer(directory: string): Promise<boolean> {
  return exists(join(directory, 'tokenizer.json'));
}

/** A tokenizer of single bytes: enough to find where held-out documents end before there is another. */
export async function byteTokenizer(binding: NativeBinding): Promise<NativeTokenizer> {
  return binding
    .createTokenizerTrainer(
      JSON.stringify({ vocab_size: 257, pattern: 'gpt2', special_tokens: ['<|endoftext|>'] }),
    )
    .finish();
}
