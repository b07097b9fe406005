/** One run of a user's program: started, listened to, ended. What to do about its end is its supervisor's business. */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { Exit } from './streamer-process.js';

export interface ProgramOptions {
  command: readonly string[];
  cwd: string | undefined;
  env: NodeJS.ProcessEnv;
  /** JSON that says where to begin; null: at the beginning. */
  position: string | null;
}

export interface ProgramEvents {
  /** Bytes of its standard output. */
  data(chunk: Uint8Array): void;
  /** A line of its standard error. True if it was for us and need not be kept. */
  stderr(line: string): boolean;
  /** It is gone and all that it wrote has been handed on. Not called for one that was stopped. */
  exit(exit: Exit): void;
}

/** Environment variable in which a program finds where to begin. */
export const positionVariable = 'CANDLEWICK_POSITION';
const keptLines = 200;
const killAfter = 2_000;

/**
 * Ends a group of processes when the pipe that it reads ends without a word: then this process is gone, however that
 * came. A program in a group of its own would otherwise live on until it next writes.
 */
const watcherScript = `read -r word <&3 && exit
kill -s TERM -- "-$1"; sleep 2; kill -s KILL -- "-$1"`;

/** A running program, in a process group of its own: Ctrl+C in a terminal is for us to handle. */
export class Program {
  readonly #child: ChildProcess;
  readonly #stdout: Readable;
  readonly #watcher: ChildProcess | null;
  readonly #gone: Promise<void>;
  #stderr: string[] = [];
  #isGone = false;
  #isStopped = false;

  constructor({ command, cwd, env, position }: ProgramOptions, events: ProgramEvents) {
    const [file = '', ...args] = command;
    const { [positionVariable]: _, ...inherited } = env;
    this.#child = spawn(file, args, {
      ...(cwd === undefined ? {} : { cwd }),
      env: position === null ? inherited : { ...inherited, [positionVariable]: position },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: process.platform !== 'win32',
    });
    this.#stdout = this.#child.stdout as Readable;
    this.#stdout.on('data', events.data);
    // A pipe that breaks means that the process is gone; its exit tells the rest.
    for (const stream of this.#child.stdio) stream?.on('error', () => {});
    this.#keepStderr(events.stderr);
    this.#watcher = this.#watch();
    this.#gone = new Promise((resolve) => {
      const end = (exit: Exit) => {
        if (this.#isGone) return;
        // Whatever it started and left behind.
        this.#signal('SIGKILL');
        this.#isGone = true;
        (this.#watcher?.stdio[3] as NodeJS.WritableStream | undefined)?.end('gone\n');
        resolve();
        if (!this.#isStopped) events.exit(exit);
      };
      this.#child.on('error', (error) => {
        if (this.#child.pid === undefined) end({ code: null, signal: null, error });
      });
      this.#child.on('exit', (code, signal) => {
        if (this.#isStopped) end({ code, signal, error: null });
      });
      this.#child.on('close', (code, signal) => end({ code, signal, error: null }));
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

  /** Stops reading its output, so that it has to wait once the pipe is full. */
  pause(): void {
    this.#stdout.pause();
  }

  /** Reads on. */
  resume(): void {
    if (!this.#isStopped) this.#stdout.resume();
  }

  /** Ends it: TERM, and KILL where that is not enough. Resolves when it is gone. */
  async stop(): Promise<void> {
    if (this.#isGone) return;
    if (!this.#isStopped) {
      this.#isStopped = true;
      this.#stdout.destroy();
      this.#signal('SIGTERM');
      // It may have been stopped by a signal, and would not hear of its end.
      this.#signal('SIGCONT');
    }
    const timer = setTimeout(() => this.#signal('SIGKILL'), killAfter);
    await this.#gone;
    clearTimeout(timer);
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

  #watch(): ChildProcess | null {
    const { pid } = this.#child;
    if (pid === undefined || process.platform === 'win32') return null;
    const watcher = spawn('/bin/sh', ['-c', watcherScript, 'sh', String(pid)], {
      stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
      detached: true,
    });
    // Without a shell there is no watcher; the program then ends when it next writes.
    watcher.on('error', () => {});
    watcher.stdio[3]?.on('error', () => {});
    watcher.unref();
    (watcher.stdio[3] as (Readable & { unref?(): void }) | null)?.unref?.();
    return watcher;
  }

  #keepStderr(hear: (line: string) => boolean): void {
    let rest = '';
    const keep = (lines: string[]) => {
      const kept = lines.map((line) => line.trimEnd()).filter((line) => line !== '' && !hear(line));
      this.#stderr = [...this.#stderr, ...kept].slice(-keptLines);
    };
    this.#child.stderr
      ?.setEncoding('utf8')
      .on('data', (text: string) => {
        const lines = (rest + text).split('\n');
        // What never ends a line must not fill memory.
        rest = (lines.pop() ?? '').slice(-10_000);
        keep(lines);
      })
      .on('end', () => keep([rest]));
  }
}
