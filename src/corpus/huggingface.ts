/** A dataset as a program sees it: a stream of documents, read by a streamer process. */
import { createHash } from 'node:crypto';
import type { NativeLink } from '../native/binding.js';
import { native } from '../native/index.js';
import {
  aborted,
  batchesOf,
  limit,
  type OpenCorpus,
  once,
  positive,
  type StreamingCorpus,
  streamOf,
  usage,
} from './corpus.js';
import type { ReadyMessage } from './messages.js';
import { findPython } from './python.js';
import type { SourceEvent } from './notices.js';
import { defaultRetryBudget, Streamer } from './streamer.js';
import { templateHint, templateProblem } from './template.js';

/** Options of {@link HuggingFaceStreamingCorpus}. */
export interface HuggingFaceCorpusOptions {
  /** Config (subset) of the dataset; default: its default one. */
  configName?: string | null | undefined;
  /** Default: `train`. */
  split?: string | undefined;
  /** Column with the documents; default: `text`. */
  textColumn?: string | undefined;
  /** Columns joined to a text, such as `{title}\n\n{text}`, instead of one column; `{{` and `}}` are braces. */
  textTemplate?: string | null | undefined;
  /** Commit, tag or branch; default: what the default branch is when the dataset is opened. */
  revision?: string | null | undefined;
  /** Documents fetched at a time, and the length of the arrays that `batches()` yields; default: 1000. */
  batchSize?: number | undefined;
  /** Documents in all; default: no limit. */
  maxSamples?: number | null | undefined;
  /** Passes over the dataset; `null` or `Infinity`: no limit; default: 1. */
  epochs?: number | null | undefined;
  /** Aborting it ends every stream with `ABORTED` and the process with them. */
  signal?: AbortSignal | undefined;
  /** Python to run; default: `CANDLEWICK_PYTHON`, an active or nearby environment, `python3`. */
  python?: string | undefined;
  /** Environment variables of the streamer; default: this process's. */
  env?: NodeJS.ProcessEnv | undefined;
  /** Seconds until the dataset must be open; default: 120. */
  loadTimeout?: number | undefined;
  /** Seconds without progress after which a hub that fails is given up; default: 1800. */
  retryBudget?: number | undefined;
  /** Seconds before the first new attempt, at most; doubled for each that follows, up to 120 times that; default: 0.5. */
  retryDelay?: number | undefined;
  /** Told about loading, restarts and whatever else happens to the source. */
  onEvent?: ((event: SourceEvent) => void) | undefined;
}

/** What identifies a stream: two that agree in this bring the same documents in the same order. */
export interface SourceDescription {
  dataset: string;
  config_name: string | null;
  split: string;
  /** Pinned commit; null for what lies on this machine. */
  revision: string | null;
  text_column: string;
  text_template: string | null;
  /** SHA-256 of the list of files, hex. */
  files: string;
}

/** A dataset that is open. */
export interface OpenDataset extends OpenCorpus {
  description: SourceDescription;
}

interface Running {
  streamer: Streamer;
  link: NativeLink;
}

const defaults = { split: 'train', textColumn: 'text', batchSize: 1000, epochs: 1, loadTimeout: 120 };
/** Milliseconds for which an unused streamer is kept for the next stream. Longer, and programs would end late. */
const idleTime = 1_000;

/**
 * Documents of a Hugging Face dataset, a local file or directory, or `sample`, streamed and never stored.
 *
 * The constructor only checks. The streamer process starts with the first use, serves every stream of this corpus, and
 * ends with `close()`, or a moment after the last stream; a stream that begins later starts another, at the same commit.
 */
export class HuggingFaceStreamingCorpus implements StreamingCorpus {
  readonly dataset: string;
  readonly options: Readonly<HuggingFaceCorpusOptions>;
  readonly batchSize: number;
  /** Documents in all; null: no limit. */
  readonly maxSamples: number | null;
  /** Passes; null: no limit. */
  readonly epochs: number | null;
  #opening: Promise<Running> | null = null;
  #running: Running | null = null;
  /** Commit that the first opening found. */
  #revision: string | null = null;
  #users = 0;
  #idle: NodeJS.Timeout | null = null;
  /** End of a streamer that was not used any more. */
  #resting: Promise<void> | undefined;
  #closing: Promise<void> | null = null;

  /** Throws `USAGE` for options that make no sense. */
  constructor(dataset: string, options: HuggingFaceCorpusOptions = {}) {
    if (typeof dataset !== 'string' || dataset === '') {
      throw usage('the dataset is empty', 'name a hub dataset (owner/name), a path, or `sample`');
    }
    this.dataset = dataset;
    this.options = options;
    this.batchSize = positive('batchSize', options.batchSize ?? defaults.batchSize);
    this.maxSamples = limit('maxSamples', options.maxSamples ?? null);
    this.epochs = limit('epochs', options.epochs === undefined ? defaults.epochs : options.epochs);
    if (typeof options.textTemplate === 'string') {
      const problem = templateProblem(options.textTemplate);
      if (problem !== null) throw usage(`the text template ${problem}`, templateHint);
      if (options.textColumn !== undefined && options.textColumn !== defaults.textColumn)
        throw usage('textColumn and textTemplate exclude each other', 'name the column in the template');
    }
    const timeout = options.loadTimeout ?? defaults.loadTimeout;
    if (!(timeout > 0)) throw usage(`loadTimeout is ${timeout}`, 'give a number of seconds above 0');
    const { retryBudget: budget = defaultRetryBudget } = options;
    if (!(budget >= 0)) throw usage(`retryBudget is ${budget}`, 'give a number of seconds, 0 or more');
    const { retryDelay: delay = 0 } = options;
    if (!(delay >= 0)) throw usage(`retryDelay is ${delay}`, 'give a number of seconds, 0 or more');
  }

  /** Every document in file order, null and empty ones left out. */
  async *stream(): AsyncGenerator<string, void, undefined> {
    yield* streamOf(this);
  }

  /** The same documents in arrays of `batchSize`; the last may be shorter. */
  async *batches(): AsyncGenerator<string[], void, undefined> {
    yield* batchesOf(this);
  }

  /**
   * Opens the dataset and resolves when it is ready to be read natively. Call `release` on what it returns, or
   * `close()`, when done.
   */
  async open(): Promise<OpenDataset> {
    const { signal } = this.options;
    if (signal?.aborted) throw aborted(signal);
    if (this.#closing) throw usage('the corpus is closed', 'make a new one');
    this.#users++;
    if (this.#idle) clearTimeout(this.#idle);
    const release = once(() => this.#release());
    try {
      this.#opening ??= this.#start();
      const { streamer, link } = await this.#opening;
      if (streamer.failure) throw streamer.failure;
      const ready = await streamer.ready();
      this.#revision ??= ready.revision;
      const description = describe(ready);
      const { files: _, ...identity } = description;
      const source = { link, ready, identity, weight: 1, on_exhausted: 'stop' as const };
      return { sources: [source], description, release };
    } catch (error) {
      release();
      throw error;
    }
  }

  /** Ends the streamer process and every stream of this corpus. Resolves when the process is gone. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    if (this.#idle) clearTimeout(this.#idle);
    this.options.signal?.removeEventListener('abort', this.#onAbort);
    // A start that failed has nothing left to end.
    const running = await this.#opening?.catch(() => null);
    await running?.streamer.close();
    await this.#resting;
  }

  #release(): void {
    if (--this.#users > 0 || this.#closing) return;
    this.#idle = setTimeout(() => {
      const opened = this.#opening;
      this.#opening = null;
      this.#running = null;
      this.#resting = opened?.then(({ streamer }) => streamer.close()).catch(() => {});
    }, idleTime);
  }

  readonly #onAbort = (): void => {
    const { signal } = this.options;
    if (signal) this.#running?.streamer.fail(aborted(signal));
    void this.close();
  };

  async #start(): Promise<Running> {
    const {
      configName,
      env = process.env,
      loadTimeout,
      onEvent,
      python,
      retryBudget,
      retryDelay,
      revision,
      signal,
      split,
      textColumn,
      textTemplate,
    } = this.options;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    const found = await findPython({ ...(python ? { python } : {}), env });
    if (signal?.aborted) throw aborted(signal);
    const link = native().createLink();
    const streamer = new Streamer(link, {
      source: {
        dataset: this.dataset,
        configName: configName ?? null,
        split: split ?? defaults.split,
        textColumn: textColumn ?? defaults.textColumn,
        textTemplate: textTemplate ?? null,
        revision: this.#revision ?? revision ?? null,
        batchSize: this.batchSize,
      },
      python: found.path,
      env,
      loadTimeout: (loadTimeout ?? defaults.loadTimeout) * 1000,
      ...(retryBudget === undefined ? {} : { retryBudget }),
      ...(retryDelay === undefined ? {} : { retryDelay: retryDelay * 1000 }),
      ...(onEvent ? { onEvent } : {}),
    });
    this.#running = { streamer, link };
    return this.#running;
  }
}

/** What identifies a stream, from what its streamer announced. */
export function describe(ready: ReadyMessage): SourceDescription {
  const { config_name, dataset, files, revision, split, text_column, text_template = null } = ready;
  const digest = createHash('sha256');
  for (const file of files) digest.update(`${file}\n`);
  return { dataset, config_name, split, revision, text_column, text_template, files: digest.digest('hex') };
}
