/** Exit codes of a command that a signal ended. */
const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

type StopSignal = keyof typeof exitCodes;
const names = Object.keys(exitCodes) as StopSignal[];

/**
 * One Ctrl+C under `npm start` may arrive twice: once from the terminal and once handed on by npm. Nobody presses it
 * twice within this time and means it.
 */
const ECHO_MS = 300;

/**
 * Turns SIGINT, SIGTERM and SIGHUP (its terminal is gone) into an abort: the first asks to save and stop, the second
 * ends the process at once. Dispose it when the work is done.
 */
export class StopSignals {
  readonly #controller = new AbortController();
  readonly #hear: (name: StopSignal) => void;
  #received: StopSignal | null = null;
  #receivedAt = 0;

  /** `hear` is told of the first signal. */
  constructor(hear: (name: string) => void) {
    this.#hear = (name) => {
      if (name === this.#received && performance.now() - this.#receivedAt < ECHO_MS) return;
      if (this.#received !== null) {
        // Service managers send it after another, and it is nobody's impatience.
        if (name === 'SIGHUP') return;
        // The line that shows the progress may be open.
        if (process.stderr.isTTY) process.stderr.write('\n');
        process.exit(exitCodes[name]);
      }
      this.#received = name;
      this.#receivedAt = performance.now();
      hear(name);
      this.#controller.abort();
    };
    for (const name of names) process.on(name, this.#hear);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The exit code of the signal that came, or null. */
  get exitCode(): number | null {
    return this.#received === null ? null : exitCodes[this.#received];
  }

  [Symbol.dispose](): void {
    for (const name of names) process.off(name, this.#hear);
  }
}
