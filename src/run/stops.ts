import { rm } from 'node:fs/promises';
import { performance } from 'node:perf_hooks';
import { exists } from './disk.js';

/** Why a run ends before its limits. */
export type StopCause = 'signal' | 'file' | 'minutes';

export interface StopNotice {
  type: 'stopping';
  cause: StopCause;
  message: string;
}

const LOOK_MS = 500;

/** What ends a run early: the caller's signal, a file called STOP in its directory, and the minutes that it may take. */
export class Stops {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal | undefined;
  readonly #began = performance.now();
  readonly #onAbort = () => this.#stop('signal', 'told to stop: saving the last completed step');
  #hear: (notice: StopNotice) => void;
  #file: string | null = null;
  #minutes: number | null = null;
  #timer: NodeJS.Timeout | null = null;

  /** `hear` is told once, when the run is to end. */
  constructor(caller: AbortSignal | undefined, hear: (notice: StopNotice) => void) {
    this.#caller = caller;
    this.#hear = hear;
    if (caller?.aborted === true) this.#onAbort();
    else caller?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Aborted when the run is to save and end. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Sends the notice somewhere else from now on. */
  tell(hear: (notice: StopNotice) => void): void {
    this.#hear = hear;
  }

  /** Looks for `file` and at the clock from now on. A file that lies there already is taken away; returns whether one did. */
  async watch(file: string, minutes: number | null): Promise<boolean> {
    const stale = await exists(file);
    if (stale) await rm(file, { force: true, recursive: true });
    this.#file = file;
    this.#minutes = minutes;
    this.#timer = setInterval(() => void this.#look(), LOOK_MS);
    this.#timer.unref();
    return stale;
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#caller?.removeEventListener('abort', this.#onAbort);
  }

  async #look(): Promise<void> {
    const minutes = this.#minutes;
    if (minutes !== null && performance.now() - this.#began >= minutes * 60_000) {
      this.#stop('minutes', `${minutes} minutes are over: saving the last completed step`);
    } else if (this.#file !== null && (await exists(this.#file))) {
      // It has been obeyed: the next start is not to find it.
      await rm(this.#file, { force: true, recursive: true }).catch(() => undefined);
      this.#stop('file', `found ${this.#file}: saving the last completed step`);
    }
  }

  #stop(cause: StopCause, message: string): void {
    if (this.signal.aborted) return;
    this.close();
    this.#hear({ type: 'stopping', cause, message });
    this.#controller.abort();
  }
}
