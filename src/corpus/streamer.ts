/** Supervises the streamer: starts it, feeds the native link, starts it again when it dies or falls silent. */
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CandlewickError, errorFor } from '../errors.js';
import type { NativeLink } from '../native/binding.js';
import { AnswerCounter } from './frames.js';
import { type ControlMessage, type ErrorMessage, parseMessages, type ReadyMessage } from './messages.js';
import { type SourceEvent, triedInWords } from './notices.js';
import { type Failure, isGivenUp, RetryPolicy } from './retry.js';
import { type Exit, StreamerProcess } from './streamer-process.js';
import { Watchdog } from './watchdog.js';

/** What to stream. */
export interface StreamerSource {
  dataset: string;
  configName: string | null;
  split: string;
  textColumn: string;
  /** Columns joined to a text, instead of a column. */
  textTemplate?: string | null;
  revision: string | null;
  /** Documents a frame, at most. */
  batchSize: number;
}

/** How to run it. */
export interface StreamerOptions {
  source: StreamerSource;
  /** The interpreter. */
  python: string;
  env: NodeJS.ProcessEnv;
  /** Milliseconds until the dataset must be open. */
  loadTimeout: number;
  /** Milliseconds without a sign of life before the process is taken for dead. */
  silence?: number;
  /** Seconds between its heartbeats. */
  heartbeat?: number;
  /** Milliseconds with something to do and nothing done after which the process is taken for stuck. */
  stuck?: number;
  /** Milliseconds before the first new attempt, at most; doubled for each that follows, up to 120 times that. */
  retryDelay?: number;
  /** Seconds without progress after which a source that fails is given up. */
  retryBudget?: number;
  onEvent?: (event: SourceEvent) => void;
}

/** Seconds for which a source that fails is asked again. */
export const defaultRetryBudget = 1800;
/** New starts in a row of a process that fails by itself. */
const maxRestarts = 3;
/** Failures in a row after which a new process, without this one's caches, is to try. */
const attemptsOfOneProcess = 4;
const budgetHint =
  'the same command goes on later from what was saved; --retry-budget SECONDS sets how long to wait';
const crashHint = 'what it wrote last is above; `npx candlewick setup` makes a fresh Python environment';

/** `streamer.py`, beside this file in a checkout; the compiled package keeps it there too. */
export function streamerScript(): string {
  const places = ['./streamer.py', '../../src/corpus/streamer.py'];
  const paths = places.map((place) => fileURLToPath(new URL(place, import.meta.url)));
  return paths.find((path) => existsSync(path)) ?? (paths[0] as string);
}

/**
 * A streamer that is kept running. Requests come from `link`, answers go to it; when the process has to be started
 * anew, the link asks again for what was not answered. A source that fails for good fails the link.
 */
export class Streamer {
  readonly #options: Required<Omit<StreamerOptions, 'onEvent'>>;
  readonly #onEvent: (event: SourceEvent) => void;
  readonly #link: NativeLink;
  readonly #started: Promise<ReadyMessage>;
  #settleStart: { resolve(ready: ReadyMessage): void; reject(error: CandlewickError): void } | null = null;

  #process: StreamerProcess | null = null;
  /** What the first process announced; later ones must announce the same. */
  #ready: ReadyMessage | null = null;
  #isReady = false;
  /** Requests by id that wait for the process to be ready; a later copy of a request replaces an earlier one. */
  readonly #held = new Map<number, string>();
  #answers = new AnswerCounter();
  readonly #retry: RetryPolicy;
  /** Failures of this process since its last answer. */
  #failures = 0;
  #complaint: ErrorMessage | null = null;
  #startedAt = 0;
  #watch: Watchdog | null = null;
  #loadTimer: NodeJS.Timeout | null = null;
  #retryTimer: NodeJS.Timeout | null = null;
  #isWaitingToRetry = false;
  #failure: CandlewickError | null = null;
  #closing: Promise<void> | null = null;

  constructor(link: NativeLink, options: StreamerOptions) {
    const { onEvent, ...rest } = options;
    this.#options = {
      silence: 30_000,
      heartbeat: 5,
      stuck: 180_000,
      retryDelay: 500,
      retryBudget: defaultRetryBudget,
      ...rest,
    };
    const { retryBudget: budget, retryDelay } = this.#options;
    this.#retry = new RetryPolicy({ budget, base: retryDelay / 1000 });
    this.#onEvent = onEvent ?? (() => {});
    this.#link = link;
    this.#started = new Promise((resolve, reject) => {
      this.#settleStart = { resolve, reject };
    });
    // A failed start is reported to whoever waits for it; nobody may be waiting yet.
    this.#started.catch(() => {});
    this.#spawn();
    void this.#passRequests();
  }

  /** Resolves once the dataset is open. Rejects with what the source said, or `STREAMER_TIMEOUT`. */
  ready(): Promise<ReadyMessage> {
    return this.#started;
  }

  /** Process id of the current process. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Why the source failed for good; null while it works. */
  get failure(): CandlewickError | null {
    return this.#failure;
  }

  /** Fails the source on purpose: every feed on the link ends with `error`. */
  fail(error: CandlewickError): void {
    if (this.#failure || this.#closing) return;
    this.#failure = error;
    this.#clearTimers();
    this.#process?.kill();
    this.#link.fail(error.code, error.message, error.hint);
    this.#settleStart?.reject(error);
    this.#settleStart = null;
  }

  /** Ends the process and the link. Resolves when the process is gone. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#clearTimers();
    this.#link.close();
    const closed = errorFor(
      'ABORTED',
      'the corpus was closed while it was loading',
      'keep it open until it is read',
    );
    this.#settleStart?.reject(closed);
    this.#settleStart = null;
    await this.#process?.stop();
  }

  get #ended(): boolean {
    return this.#failure !== null || this.#closing !== null;
  }

  #spawn(): void {
    const { python, env, heartbeat, loadTimeout, source } = this.#options;
    const command = [python, streamerScript(), ...this.#arguments(source), '--heartbeat', String(heartbeat)];
    this.#isReady = false;
    this.#complaint = null;
    this.#startedAt = performance.now();
    this.#answers = new AnswerCounter();
    this.#failures = 0;
    this.#isWaitingToRetry = false;
    const running: StreamerProcess = new StreamerProcess(command, env, {
      data: (chunk) => {
        if (running === this.#process) this.#receive(chunk);
      },
      exit: (exit) => {
        if (running === this.#process) this.#exited(running, exit);
      },
    });
    this.#process = running;
    this.#loadTimer = setTimeout(() => this.#loadingTooLong(loadTimeout), loadTimeout);
    this.#startWatch();
  }

  #arguments(source: StreamerSource): string[] {
    const revision = this.#ready?.revision ?? source.revision;
    const given: [string, string | null][] = [
      ['--dataset', source.dataset],
      ['--config-name', this.#ready?.config_name ?? source.configName],
      ['--split', source.split],
      ['--text-column', source.textColumn],
      ['--text-template', source.textTemplate ?? null],
      ['--revision', revision],
      ['--batch-size', String(source.batchSize)],
    ];
    // With `=`, a value that begins with a dash stays a value.
    return given.flatMap(([name, value]) => (value === null ? [] : [`${name}=${value}`]));
  }

  async #passRequests(): Promise<void> {
    for (;;) {
      const lines = await this.#link.nextWrites();
      if (lines === null) return;
      if (this.#isReady) this.#process?.write(lines);
      else for (const line of lines.split('\n')) if (line) this.#held.set(requestId(line), line);
    }
  }

  /** Writes what was asked for while no process was ready, in the order in which it was first asked. */
  #releaseHeld(): void {
    const lines = [...this.#held].sort(([a], [b]) => a - b).map(([, line]) => `${line}\n`);
    this.#held.clear();
    if (lines.length > 0) this.#process?.write(lines.join(''));
  }

  #receive(chunk: Uint8Array): void {
    this.#watch?.heard();
    if (this.#ended) return;
    const before = this.#answers.answers;
    this.#answers.push(chunk);
    let messages: ControlMessage[];
    try {
      messages = parseMessages(this.#link.push(chunk));
    } catch (error) {
      const { message, hint } =
        error instanceof CandlewickError ? error : { message: String(error), hint: 'this is a bug' };
      this.#incident(errorFor('PROTOCOL_VIOLATION', message, hint, error));
      return;
    }
    if (this.#answers.answers > before) this.#progress();
    for (const message of messages) this.#hear(message);
  }

  #progress(): void {
    this.#failures = 0;
    const took = this.#retry.progress();
    if (took) this.#onEvent({ type: 'recovered', ...took });
  }

  #hear(message: ControlMessage): void {
    if (message.kind === 'loading') {
      this.#onEvent({ type: 'loading', phase: message.phase, seconds: message.seconds });
    } else if (message.kind === 'progress') {
      this.#onEvent({ type: 'notice', message: message.message });
    } else if (message.kind === 'heartbeat') {
      if (this.#isWaitingToRetry || !this.#isReady) this.#watch?.rested();
      else this.#watch?.beat(message, this.#answers.answers);
    } else if (message.kind === 'error') {
      if (message.waits) this.#tryAgain(message);
      else this.#complaint = message;
    } else if (message.kind === 'ready') {
      this.#becameReady(message);
    }
  }

  #becameReady(ready: ReadyMessage): void {
    clearTimeout(this.#loadTimer ?? undefined);
    if (this.#ready && !sameFiles(this.#ready, ready)) {
      const { dataset } = ready;
      this.fail(
        errorFor(
          'SOURCE_CORRUPT',
          `the files of ${dataset} changed while it was read`,
          'leave its files alone while a run reads them; a run over the new files starts in a new output directory',
        ),
      );
      return;
    }
    // Later processes have to bring more than that: what they were started for.
    if (this.#ready === null) this.#progress();
    this.#ready ??= ready;
    this.#isReady = true;
    this.#releaseHeld();
    this.#onEvent({ type: 'ready', seconds: (performance.now() - this.#startedAt) / 1000 });
    this.#settleStart?.resolve(ready);
    this.#settleStart = null;
  }

  #exited(process: StreamerProcess, exit: Exit): void {
    if (this.#ended) return;
    const complaint = this.#complaint;
    if (complaint) {
      const error = errorFor(complaint.code, complaint.message, complaint.hint);
      if (!complaint.retryable) this.fail(error);
      else if (isOurs(complaint.code)) this.#incident(error);
      else this.#unavailable(error, failureOf(complaint), complaint.cause);
      return;
    }
    if (exit.error) {
      this.fail(
        errorFor(
          'PYTHON_NOT_FOUND',
          `Python cannot be started: ${exit.error.message}`,
          'set CANDLEWICK_PYTHON to the path of a Python 3.10 or newer',
          exit.error,
        ),
      );
      return;
    }
    const how = exit.signal ? `was killed by ${exit.signal}` : `exited with code ${exit.code}`;
    this.#incident(errorFor('STREAMER_CRASHED', withTail(`the streamer ${how}`, process.stderr), crashHint));
  }

  /** The process failed by itself: a few new ones may put that right. */
  #incident(error: CandlewickError): void {
    if (this.#ended) return;
    const decision = this.#retry.failed({ kind: 'process', attempts: maxRestarts, retryAfter: null });
    if (isGivenUp(decision)) {
      this.fail(error);
      return;
    }
    const { attempt, delay } = decision;
    this.#onEvent({ type: 'restart', attempt, code: error.code, message: firstLine(error.message) });
    this.#startAgain(delay);
  }

  /** The source failed, and the process waits to be told to ask it again. */
  #tryAgain(complaint: ErrorMessage): void {
    const error = errorFor(complaint.code, complaint.message, complaint.hint);
    const delay = this.#decide(error, failureOf(complaint), complaint.cause);
    if (delay === null) return;
    if (++this.#failures >= attemptsOfOneProcess) {
      this.#startAgain(delay);
      return;
    }
    const waiting = this.#process;
    this.#isWaitingToRetry = true;
    this.#retryTimer = setTimeout(() => {
      this.#isWaitingToRetry = false;
      this.#watch?.rested();
      waiting?.write(`${JSON.stringify({ op: 'retry', id: complaint.id })}\n`);
    }, delay * 1000);
  }

  /** The source failed and the process is gone, or of no more use. */
  #unavailable(error: CandlewickError, failure: Failure, cause?: string): void {
    const delay = this.#decide(error, failure, cause);
    if (delay !== null) this.#startAgain(delay);
  }

  /** Seconds until a source that failed is asked again; null where it is given up. */
  #decide(error: CandlewickError, failure: Failure, cause = firstLine(error.message)): number | null {
    if (this.#ended) return null;
    const decision = this.#retry.failed(failure);
    if (!isGivenUp(decision)) {
      this.#onEvent({ type: 'retry', cause, ...decision });
      return decision.delay;
    }
    const { code, hint, message } = error;
    const tried = `${message}; ${triedInWords(decision, failure.retryAfter)}`;
    this.fail(errorFor(code, tried, decision.reason === 'attempts' ? hint : `${hint}; ${budgetHint}`));
    return null;
  }

  #startAgain(delay: number): void {
    this.#clearTimers();
    this.#isReady = false;
    const dead = this.#process;
    this.#process = null;
    dead?.kill();
    this.#retryTimer = setTimeout(() => {
      if (this.#ended) return;
      this.#spawn();
      // Before the new process has sent anything: the link forgets half a frame and queues its requests again.
      this.#link.restart();
    }, delay * 1000);
  }

  #loadingTooLong(milliseconds: number): void {
    const seconds = milliseconds / 1000;
    const tail = this.#process?.stderr ?? [];
    const error = errorFor(
      'STREAMER_TIMEOUT',
      withTail(`${this.#options.source.dataset} was not open after ${seconds} s`, tail),
      'check the network, or allow more time with --load-timeout SECONDS',
    );
    // It has been open before, so that it is not the dataset that takes so long.
    if (this.#ready) this.#unavailable(error, { kind: 'loading', attempts: null, retryAfter: null });
    else this.fail(error);
  }

  #startWatch(): void {
    const { silence, source, stuck } = this.#options;
    this.#watch = new Watchdog({
      silence,
      stuck,
      onSilence: () => {
        const tail = this.#process?.stderr ?? [];
        const message = withTail(`the streamer was silent for ${silence / 1000} s`, tail);
        this.#incident(errorFor('STREAMER_CRASHED', message, crashHint));
      },
      onStuck: (seconds) => {
        const cause = `nothing came for ${Math.round(seconds)} s`;
        const error = errorFor('SOURCE_UNAVAILABLE', `${source.dataset}: ${cause}`, 'check the network');
        this.#unavailable(error, { kind: 'stuck', attempts: null, retryAfter: null }, cause);
      },
    });
  }

  #clearTimers(): void {
    this.#watch?.stop();
    if (this.#loadTimer) clearTimeout(this.#loadTimer);
    if (this.#retryTimer) clearTimeout(this.#retryTimer);
  }
}

/** Failures that are not the source's, and that waiting does not cure. */
function isOurs(code: string): boolean {
  return code === 'STREAMER_CRASHED' || code === 'PROTOCOL_VIOLATION';
}

function failureOf({ attempts = null, code, retry_after: retryAfter = null }: ErrorMessage): Failure {
  // A count of attempts is for one kind of failure only.
  return { kind: attempts === null ? code : `${code} ${attempts}`, attempts, retryAfter };
}

function requestId(line: string): number {
  return (JSON.parse(line) as { id: number }).id;
}

function sameFiles(a: ReadyMessage, b: ReadyMessage): boolean {
  const identity = ({ files, revision, row_groups }: ReadyMessage) =>
    JSON.stringify([files, revision, row_groups]);
  return identity(a) === identity(b);
}

function withTail(message: string, stderr: readonly string[]): string {
  return stderr.length > 0
    ? `${message}; it wrote:\n${stderr.map((line) => `  ${line}`).join('\n')}`
    : message;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
