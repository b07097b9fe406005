/** Supervises the runs of a program: starts them as their readers need, reads them as fast as their readers do. */
import { CandlewickError, errorFor } from '../errors.js';
import type { NativeLineLink } from '../native/binding.js';
import { Program } from './program.js';
import type { Exit } from './streamer-process.js';
import type { SourceEvent } from './notices.js';

/** A program says how far it is: `{"progress":N}` on its standard error. */
export interface ProgressEvent {
  type: 'progress';
  value: number;
}

export interface ProgramRunsOptions {
  command: readonly string[];
  cwd: string | undefined;
  env: NodeJS.ProcessEnv;
  /** Milliseconds without a word, while it is read, before a run is taken for dead. */
  silence: number;
  /** Milliseconds before the first new start; doubled for each that follows. */
  restartDelay: number;
  onEvent: (event: SourceEvent | ProgressEvent) => void;
}

/** What the native side wants done; see `LineLink::take_commands`. */
interface Command {
  reading: number;
  op: 'start' | 'read' | 'status' | 'notice' | 'done' | 'end';
  run: number;
  position: string | null;
  repeated: number;
  received: number;
  read: boolean;
  status: 'loading' | 'ready';
  message: string;
}

const maxRestarts = 3;
/** Milliseconds that a program may take to end after it said that it is done. */
const endsWithin = 5_000;
const crashHint = 'what it wrote last is above; run the command by hand to see more';

/** All runs of one command, a reader's after the other and different readers' side by side. */
export class ProgramRuns {
  readonly #link: NativeLineLink;
  readonly #options: ProgramRunsOptions;
  readonly #readings = new Map<number, Reading>();
  /** Programs that were told to end. */
  readonly #ending = new Set<Promise<void>>();
  #failure: CandlewickError | null = null;
  #isClosed = false;

  constructor(link: NativeLineLink, options: ProgramRunsOptions) {
    this.#link = link;
    this.#options = options;
    void this.#obey();
  }

  /** Process ids of the programs that run now. */
  get pids(): number[] {
    return [...this.#readings.values()].flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Why every reader was failed; null while that is not so. */
  get failure(): CandlewickError | null {
    return this.#failure;
  }

  /** Fails every reader with `error`. */
  fail(error: CandlewickError): void {
    if (this.#failure || this.#isClosed) return;
    this.#failure = error;
    this.#link.fail(error.code, error.message, error.hint);
  }

  /** Ends every program and the link. Resolves when they are gone. */
  async close(): Promise<void> {
    if (!this.#isClosed) {
      this.#isClosed = true;
      this.#link.close();
      for (const reading of this.#readings.values()) reading.stop();
      this.#readings.clear();
    }
    await Promise.all(this.#ending);
  }

  async #obey(): Promise<void> {
    for (;;) {
      const lines = await this.#link.nextCommands();
      if (lines === null || this.#isClosed) return;
      for (const line of lines.split('\n')) if (line) this.#do(JSON.parse(line) as Command);
    }
  }

  #do(command: Command): void {
    let reading = this.#readings.get(command.reading);
    if (command.op === 'end') {
      reading?.stop();
      this.#readings.delete(command.reading);
      return;
    }
    if (reading === undefined) {
      const onStop = (stopped: Promise<void>) => this.#keep(stopped);
      reading = new Reading(command.reading, this.#link, this.#options, onStop);
      this.#readings.set(command.reading, reading);
    }
    if (command.op === 'start') reading.start(command);
    else if (command.op === 'read') reading.resume();
    else if (command.op === 'status') reading.hear(command.status);
    else if (command.op === 'done') reading.done();
    else this.#options.onEvent({ type: 'notice', message: command.message });
  }

  #keep(stopped: Promise<void>): void {
    this.#ending.add(stopped);
    void stopped.finally(() => this.#ending.delete(stopped));
  }
}

/** One reader's program, and its successors where it dies. */
class Reading {
  readonly #number: number;
  readonly #link: NativeLineLink;
  readonly #options: ProgramRunsOptions;
  readonly #onStop: (stopped: Promise<void>) => void;
  #program: Program | null = null;
  #run = 0;
  /** Rows of the pass that had come when this run began. */
  #received = 0;
  /** Some run has brought something. */
  #hasBrought = false;
  #restarts = 0;
  #isRestart = false;
  #isRead = false;
  #startedAt = 0;
  #lastHeard = 0;
  #watch: NodeJS.Timeout | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(
    number: number,
    link: NativeLineLink,
    options: ProgramRunsOptions,
    onStop: (stopped: Promise<void>) => void,
  ) {
    this.#number = number;
    this.#link = link;
    this.#options = options;
    this.#onStop = onStop;
  }

  get pid(): number | undefined {
    return this.#program?.pid;
  }

  start({ position, read, received, repeated, run }: Command): void {
    this.stop();
    const { command, cwd, env, onEvent } = this.#options;
    if (repeated > 0 && position === null) {
      const texts = repeated.toLocaleString('en-US');
      const message = `the program names no position to go on from: it runs from its start, and its first ${texts} documents are passed over`;
      onEvent({ type: 'notice', message });
    }
    // A pass that came to its end makes room for the next.
    if (run > 1 && !this.#isRestart) [this.#hasBrought, this.#restarts] = [true, 0];
    this.#isRestart = false;
    this.#run = run;
    this.#received = received;
    this.#isRead = read;
    this.#startedAt = performance.now();
    const program: Program = new Program(
      { command, cwd, env, position },
      {
        data: (chunk) => this.#program === program && this.#push(program, chunk),
        stderr: (line) => this.#hearStderr(line),
        exit: (exit) => this.#program === program && this.#exited(program, exit),
      },
    );
    this.#program = program;
    if (!read) program.pause();
    this.#startWatch();
  }

  resume(): void {
    this.#isRead = true;
    this.#lastHeard = performance.now();
    this.#program?.resume();
  }

  hear(status: 'loading' | 'ready'): void {
    const seconds = (performance.now() - this.#startedAt) / 1000;
    this.#options.onEvent(
      status === 'ready' ? { type: 'ready', seconds } : { type: 'loading', phase: 'program', seconds },
    );
  }

  /** The program has said all that it has to say. */
  done(): void {
    const program = this.#program;
    if (this.#watch) clearInterval(this.#watch);
    this.#timer = setTimeout(() => {
      if (this.#program !== program || program === null) return;
      const message = `the program said that it is done and still ran ${endsWithin / 1000} s later; it was ended`;
      this.#options.onEvent({ type: 'notice', message });
      this.stop();
      this.#finish(true);
    }, endsWithin);
  }

  /** Ends its program. */
  stop(): void {
    if (this.#watch) clearInterval(this.#watch);
    if (this.#timer) clearTimeout(this.#timer);
    const program = this.#program;
    this.#program = null;
    if (program) this.#onStop(program.stop());
  }

  #push(program: Program, chunk: Uint8Array): void {
    this.#lastHeard = performance.now();
    try {
      this.#isRead = this.#link.push(this.#number, this.#run, chunk);
      if (!this.#isRead) program.pause();
    } catch (error) {
      this.#fail(violation(error, program.stderr));
    }
  }

  #exited(program: Program, exit: Exit): void {
    this.stop();
    const { command } = this.#options;
    if (exit.error) {
      const message = `the program ${command[0]} cannot be started: ${exit.error.message}`;
      this.#fail(errorFor('STREAMER_CRASHED', message, 'check the command and its cwd', exit.error));
      return;
    }
    const clean = exit.code === 0;
    const how = exit.signal ? `was killed by ${exit.signal}` : `exited with code ${exit.code}`;
    const done = this.#finish(clean, program.stderr);
    if (done && !clean)
      this.#options.onEvent({ type: 'notice', message: `the program ${how} after it was done` });
    if (done !== false) return;
    if (clean) {
      const message = withTail('the program ended without saying that it is done', program.stderr);
      this.#fail(errorFor('PROTOCOL_VIOLATION', message, 'its last line has to be {"done":true,"total":N}'));
    } else {
      this.#incident(errorFor('STREAMER_CRASHED', withTail(`the program ${how}`, program.stderr), crashHint));
    }
  }

  /** Whether the program had said that it is done; null where its last line is none. */
  #finish(clean: boolean, stderr: readonly string[] = []): boolean | null {
    try {
      return this.#link.finish(this.#number, this.#run, clean);
    } catch (error) {
      this.#fail(violation(error, stderr));
      return null;
    }
  }

  /** Something went wrong that a new run may put right. */
  #incident(error: CandlewickError): void {
    this.stop();
    const received = this.#link.received(this.#number);
    if (received > this.#received) [this.#hasBrought, this.#restarts] = [true, 0];
    // What crashes before it has brought anything does so again.
    const mayRecover = this.#hasBrought || error.code === 'STREAMER_TIMEOUT';
    if (!mayRecover || this.#restarts >= maxRestarts) {
      this.#fail(error);
      return;
    }
    const delay = this.#options.restartDelay * 2 ** this.#restarts;
    this.#restarts++;
    const message = error.message.split('\n', 1)[0] ?? error.message;
    this.#options.onEvent({ type: 'restart', attempt: this.#restarts, code: error.code, message });
    this.#isRestart = true;
    this.#timer = setTimeout(() => this.#link.restart(this.#number), delay);
  }

  #fail({ code, hint, message }: CandlewickError): void {
    this.stop();
    this.#link.failReading(this.#number, code, message, hint);
  }

  #hearStderr(line: string): boolean {
    const value = progressOf(line);
    if (value === null) return false;
    this.#lastHeard = performance.now();
    this.#options.onEvent({ type: 'progress', value });
    return true;
  }

  /** Takes a program that is read and says nothing for dead. */
  #startWatch(): void {
    const { silence } = this.#options;
    this.#lastHeard = performance.now();
    if (!Number.isFinite(silence)) return;
    const every = Math.min(1_000, silence / 4);
    let lastTick = performance.now();
    this.#watch = setInterval(() => {
      const now = performance.now();
      // The event loop stood still, or the machine slept: what came in meanwhile has not been read yet.
      if (now - lastTick > 5 * every) this.#lastHeard = now;
      lastTick = now;
      if (!this.#isRead || now - this.#lastHeard < silence) return;
      const message = withTail(
        `the program wrote nothing for ${silence / 1000} s`,
        this.#program?.stderr ?? [],
      );
      const hint =
        'allow it more with the option `silence`, or have it write {"progress":N} to stderr meanwhile';
      this.#incident(errorFor('STREAMER_TIMEOUT', message, hint));
    }, every);
    this.#watch.unref();
  }
}

function progressOf(line: string): number | null {
  if (!line.startsWith('{')) return null;
  try {
    const { progress } = JSON.parse(line) as { progress?: unknown };
    return typeof progress === 'number' ? progress : null;
  } catch {
    return null; // It is text for people that begins with a brace.
  }
}

function violation(error: unknown, stderr: readonly string[]): CandlewickError {
  if (!(error instanceof CandlewickError)) return errorFor('INTERNAL', String(error), 'please report this');
  return errorFor(error.code, withTail(error.message, stderr), error.hint, error);
}

function withTail(message: string, stderr: readonly string[]): string {
  return stderr.length > 0
    ? `${message}; it wrote:\n${stderr.map((line) => `  ${line}`).join('\n')}`
    : message;
}
