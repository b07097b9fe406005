/** One streamer process: started, fed, listened to, ended. What to do about its end is its supervisor's business. */
import { type ChildProcess, spawn } from 'node:child_process';
import { DataPipe } from './data-pipe.js';

/** How a process ended. */
export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** It could not even be started. */
  error: Error | null;
}

/** What its owner wants to know. */
export interface ProcessEvents {
  /** Bytes from the data pipe. */
  data(chunk: Uint8Array): void;
  /** It is gone and all that it sent has been handed on. */
  exit(exit: Exit): void;
}

const keptLines = 200;
const termAfter = 2_000;
const killAfter = 5_000;
const dataDescriptor = 3;

/** A running streamer. */
export class StreamerProcess {
  readonly #child: ChildProcess;
  readonly #gone: Promise<void>;
  #stderr: string[] = [];
  #isGone = false;

  constructor(command: readonly string[], env: NodeJS.ProcessEnv, events: ProcessEvents) {
    const [file = '', ...args] = command;
    const pipe = new DataPipe();
    this.#child = spawn(file, args, {
      env,
      // Data has a pipe of its own: nothing that a library prints can get into it.
      stdio: ['pipe', 'ignore', 'pipe', pipe.stdio],
      // A group of its own: Ctrl+C in a terminal is for us to handle, and ending it ends whatever it started.
      detached: process.platform !== 'win32',
    });
    const drained = pipe.drain(this.#child, dataDescriptor, events.data);
    // A pipe that breaks means that the process is gone; its exit tells the rest.
    for (const stream of this.#child.stdio) stream?.on('error', () => {});
    this.#keepStderr();
    this.#gone = new Promise((resolve) => {
      let startError: Error | null = null;
      this.#child.on('error', (error) => {
        startError = error;
        if (this.#child.pid === undefined) end({ code: null, signal: null, error });
      });
      const end = (exit: Exit) => {
        if (this.#isGone) return;
        this.#isGone = true;
        resolve();
        events.exit(exit);
      };
      this.#child.on('close', (code, signal) => {
        void drained.then(() => end({ code, signal, error: startError }));
      });
    });
  }

  /** Process id; undefined where it did not start. */
  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** The last lines that it wrote for people. */
  get stderr(): readonly string[] {
    return this.#stderr;
  }

  /** Writes request lines. */
  write(lines: string): void {
    if (this.#child.stdin?.writable) this.#child.stdin.write(lines);
  }

  /** Ends it at once. */
  kill(): void {
    this.#signal('SIGKILL');
  }

  /** Ends it: closes its stdin, and where that is not enough, TERM and KILL. Resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.#isGone) return;
    this.#child.stdin?.end();
    const timers = [
      setTimeout(() => this.#signal('SIGTERM'), termAfter),
      setTimeout(() => this.#signal('SIGKILL'), killAfter),
    ];
    await this.#gone;
    for (const timer of timers) clearTimeout(timer);
  }

  #signal(signal: NodeJS.Signals): void {
    const { pid } = this.#child;
    if (pid === undefined || this.#isGone) return;
    try {
      if (process.platform === 'win32') this.#child.kill(signal);
      else process.kill(-pid, signal);
    } catch (error) {
      // It ended between the check and the signal.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #keepStderr(): void {
    let rest = '';
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      this.#stderr.push(...lines.map((line) => line.trimEnd()).filter((line) => line !== ''));
      if (this.#stderr.length > keptLines) this.#stderr = this.#stderr.slice(-keptLines);
    });
  }
}
