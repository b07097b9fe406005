/** A program as a corpus: any command that writes documents as JSON lines. */
import type { FeedLink } from '../native/binding.js';
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
import { type ProgressEvent, ProgramRuns } from './program-runs.js';
import type { SourceEvent } from './notices.js';

/** Options of {@link ProcessStreamingCorpus}. */
export interface ProcessCorpusOptions {
  /** Working directory of the program; default: this process's. */
  cwd?: string | undefined;
  /** Environment variables of the program; default: this process's. */
  env?: NodeJS.ProcessEnv | undefined;
  /** Length of the arrays that `batches()` yields; default: 1000. */
  batchSize?: number | undefined;
  /** Documents in all; default: no limit. */
  maxSamples?: number | null | undefined;
  /** Passes: the program runs once for each; `null` or `Infinity`: no limit; default: 1. */
  epochs?: number | null | undefined;
  /** Aborting it ends every stream with `ABORTED` and the programs with them. */
  signal?: AbortSignal | undefined;
  /**
   * Seconds that the program may take to write something while it is waited for, on stdout or as progress on stderr;
   * then it is killed and another goes on where it was. Default: 300; `Infinity`: no limit.
   */
  silence?: number | undefined;
  /** Seconds before a program that died is started anew; doubled each time that nothing came since. Default: 0.5. */
  restartDelay?: number | undefined;
  /** Told about what the program says of itself, about restarts and whatever else happens. */
  onEvent?: ((event: SourceEvent | ProgressEvent) => void) | undefined;
}

const defaults = { batchSize: 1000, epochs: 1, silence: 300, restartDelay: 0.5 };

/**
 * Documents that a program writes as JSON lines on its standard output:
 *
 *     {"status":"loading"}   {"status":"ready"}           what it is doing; both optional
 *     {"batch":["text", …], "position": …}                documents; null and empty ones do not count
 *     {"done":true,"total":N}                             the end: N documents came
 *
 * `{"progress":N}` on standard error is told to `onEvent`; other lines there are kept for error messages.
 *
 * The program must write the same documents in the same order every time it runs with the same arguments. `position` is
 * any JSON and names the place after its batch; a program that goes on finds it, as JSON, in the environment variable
 * `CANDLEWICK_POSITION`. Where it names none, going on means running from the start and passing over what was read.
 *
 * The constructor only checks. Every stream, every epoch and every resume runs the program anew; it is read only as fast
 * as it is needed, and ends with its stream.
 */
export class ProcessStreamingCorpus implements StreamingCorpus {
  readonly command: readonly string[];
  /** The command as one line, for messages. */
  readonly dataset: string;
  readonly options: Readonly<ProcessCorpusOptions>;
  readonly batchSize: number;
  readonly maxSamples: number | null;
  readonly epochs: number | null;
  #runs: ProgramRuns | null = null;
  #link: FeedLink | null = null;
  #users = 0;
  /** Ends of runs that nobody used any more. */
  readonly #resting = new Set<Promise<void>>();
  #closing: Promise<void> | null = null;

  /** Throws `USAGE` for options that make no sense. */
  constructor(command: readonly string[], options: ProcessCorpusOptions = {}) {
    const isCommand = Array.isArray(command) && command.every((part) => typeof part === 'string');
    if (!isCommand || !command[0]) {
      throw usage('the command is not a list of strings', "give it as in ['python3', 'mine.py']");
    }
    this.command = [...command];
    this.dataset = command.map(quoted).join(' ');
    this.options = options;
    this.batchSize = positive('batchSize', options.batchSize ?? defaults.batchSize);
    this.maxSamples = limit('maxSamples', options.maxSamples ?? null);
    this.epochs = limit('epochs', options.epochs === undefined ? defaults.epochs : options.epochs);
    for (const name of ['silence', 'restartDelay'] as const) {
      if (!((options[name] ?? defaults[name]) > 0))
        throw usage(`${name} is ${options[name]}`, 'give a number of seconds above 0');
    }
  }

  /** Every document in the order in which it comes, null and empty ones left out. */
  async *stream(): AsyncGenerator<string, void, undefined> {
    yield* streamOf(this);
  }

  /** The same documents in arrays of `batchSize`; the last may be shorter. */
  async *batches(): AsyncGenerator<string[], void, undefined> {
    yield* batchesOf(this);
  }

  /** Resolves at once: the program starts when its first document is asked for. */
  async open(): Promise<OpenCorpus> {
    const { signal } = this.options;
    if (signal?.aborted) throw aborted(signal);
    if (this.#closing) throw usage('the corpus is closed', 'make a new one');
    const link = (this.#link ??= this.#start());
    if (this.#runs?.failure) throw this.#runs.failure;
    this.#users++;
    const source = {
      link,
      ready: this.#ready(),
      identity: { command: this.command },
      weight: 1,
      on_exhausted: 'stop' as const,
    };
    return { sources: [source], release: once(() => this.#release()) };
  }

  /** Process ids of the programs that run now. */
  get pids(): number[] {
    return this.#runs?.pids ?? [];
  }

  /** Ends the programs and every stream of this corpus. Resolves when the programs are gone. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    this.#rest();
    await Promise.all(this.#resting);
  }

  #release(): void {
    if (--this.#users === 0) this.#rest();
  }

  /** Nobody reads: ends what runs, so that Node can exit. */
  #rest(): void {
    this.options.signal?.removeEventListener('abort', this.#onAbort);
    const ended = this.#runs?.close();
    this.#runs = null;
    this.#link = null;
    if (!ended) return;
    this.#resting.add(ended);
    void ended.finally(() => this.#resting.delete(ended));
  }

  readonly #onAbort = (): void => {
    const { signal } = this.options;
    if (signal) this.#runs?.fail(aborted(signal));
    void this.close();
  };

  #start(): FeedLink {
    const { cwd, env = process.env, onEvent = () => {}, signal } = this.options;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    const link = native().createLineLink();
    this.#runs = new ProgramRuns(link, {
      command: this.command,
      cwd,
      env,
      silence: (this.options.silence ?? defaults.silence) * 1000,
      restartDelay: (this.options.restartDelay ?? defaults.restartDelay) * 1000,
      onEvent,
    });
    return link;
  }

  #ready(): ReadyMessage {
    return {
      kind: 'ready',
      dataset: this.dataset,
      config_name: null,
      split: 'train',
      revision: null,
      text_column: 'text',
      columns: ['text'],
      files: ['stdout'],
      row_groups: false,
      total_rows: null,
      versions: {},
    };
  }
}

/** A word as a shell would want it. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
