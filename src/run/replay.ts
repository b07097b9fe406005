import { join } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeFeed, NativeTokenizer } from '../native/binding.js';
import { compareIdentity, identityOf } from './identity.js';
import type { StreamCheckpoint } from './record.js';
import { named } from './source.js';
import { heldOutDocuments, heldOutOf, streamFeed } from './stream.js';
import type { StreamParts } from './stream.js';
import { holdsTokenizer } from './tokenizer.js';
import type { TrainerParts } from './trainer.js';

export interface ReplayOptions {
  parts: TrainerParts;
  config: ResolvedConfig;
  /** Run directory, for its tokenizer; null for a configuration. */
  directory: string | null;
  signal?: AbortSignal | undefined;
  /** What people should know meanwhile. */
  say: (message: string) => void;
}

/** The state of a native feed, as far as it is looked at here. */
export interface ReplayState {
  batches: number;
  tokens: number;
  documents: number;
  hash: string;
}

/** The stream of a run, opened without its trainer. */
export class Replay {
  readonly stream: StreamParts;
  readonly #close: () => Promise<void>;
  readonly #signal: AbortSignal | undefined;
  #feed: NativeFeed | null = null;
  /** Text read by the feeds before this one. */
  #bytesBefore = 0;
  readonly #abort = () => void this.#feed?.close();

  private constructor(stream: StreamParts, signal: AbortSignal | undefined, close: () => Promise<void>) {
    this.stream = stream;
    this.#signal = signal;
    this.#close = close;
    signal?.addEventListener('abort', this.#abort, { once: true });
  }

  /** Opens data, tokenizer and held-out documents as training does. Throws what opening them does. */
  static async open({ parts, config, directory, signal, say }: ReplayOptions): Promise<Replay> {
    const { binding } = parts;
    const tokenizer = await tokenizerOf(parts, config, directory);
    say(`opening ${named(config.data)}`);
    const hooks = {
      notice: ({ message }: { message: string }) => say(message),
      ...(signal === undefined ? {} : { signal }),
    };
    const corpus = parts.openCorpus(config.data, hooks);
    try {
      const { sources, release } = await corpus.open();
      const documents = heldOutDocuments(config);
      if (documents > 0) say(`passing over ${documents.toLocaleString('en-US')} held-out documents`);
      const opened = { binding, config, sources, tokenizer };
      const heldOut = await heldOutOf(opened, signal);
      return new Replay({ ...opened, heldOut }, signal, async () => {
        release();
        await corpus.close();
      });
    } catch (cause) {
      await corpus.close();
      throw cause;
    }
  }

  /** Throws RESUME_MISMATCH unless a checkpoint was written by this stream. */
  compare(checkpoint: StreamCheckpoint): void {
    const { config, sources, tokenizer } = this.stream;
    compareIdentity(
      checkpoint.path,
      checkpoint.stream.identity,
      identityOf(config, sources, tokenizer),
      'the stream cannot be replayed as it was: restore the data, config.yaml and the tokenizer that the run was trained with',
    );
  }

  /** Goes to where `from` says. */
  async seek(from: Parameters<typeof streamFeed>[1]): Promise<NativeFeed> {
    if (this.#signal?.aborted === true) throw errorFor('ABORTED', 'stopped', 'run the same command again');
    this.#bytesBefore = this.bytes;
    const before = this.#feed;
    this.#feed = null;
    await before?.close();
    this.#feed = streamFeed(this.stream, from);
    return this.#feed;
  }

  /** Bytes of text read so far. */
  get bytes(): number {
    if (this.#feed === null) return this.#bytesBefore;
    return this.#bytesBefore + (JSON.parse(this.#feed.stats()) as { bytes_read: number }).bytes_read;
  }

  async close(): Promise<void> {
    this.#signal?.removeEventListener('abort', this.#abort);
    await this.#feed?.close();
    await this.#close();
  }
}

/** Reads up to `count` batches; how many there were, and the state after the last. */
export async function advance(
  feed: NativeFeed,
  count: number,
): Promise<{ batches: number; state: ReplayState }> {
  return JSON.parse(await feed.advance(count)) as { batches: number; state: ReplayState };
}

async function tokenizerOf(
  { binding }: TrainerParts,
  config: ResolvedConfig,
  directory: string | null,
): Promise<NativeTokenizer> {
  const own = join(directory ?? config.output ?? '', 'tokenizer');
  if (directory === null && config.tokenizer.path !== null)
    return binding.tokenizerFromPath(config.tokenizer.path);
  if (await holdsTokenizer(own)) return binding.tokenizerFromPath(own);
  if (config.tokenizer.path !== null) return binding.tokenizerFromPath(config.tokenizer.path);
  throw errorFor(
    'TOKENIZER_INVALID',
    `there is no tokenizer in ${own}: it is trained when training begins`,
    'begin the run first, or name a tokenizer in the configuration (tokenizer.path)',
  );
}
