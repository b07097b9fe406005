/** Notices a streamer that is dead, and one that lives and does nothing. */
import type { HeartbeatMessage } from './messages.js';

/** Milliseconds between two looks, at most. */
const watchEvery = 1_000;

export interface WatchdogOptions {
  /** Milliseconds without a sign of life after which the process is taken for dead. */
  silence: number;
  /** Milliseconds with something to do and nothing done after which it is taken for stuck. */
  stuck: number;
  /** It is dead; called until `stop`. */
  onSilence(): void;
  /** It is stuck, since that many seconds. */
  onStuck(seconds: number): void;
}

/** Watches one process. */
export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #timer: NodeJS.Timeout;
  #lastHeard = performance.now();
  /** What was last seen to be done, and when. */
  #work = { done: '', time: performance.now() };

  constructor(options: WatchdogOptions) {
    this.#options = options;
    const { silence } = options;
    const every = Math.min(watchEvery, silence / 4);
    let lastTick = performance.now();
    this.#timer = setInterval(() => {
      const now = performance.now();
      // The event loop stood still, or the machine slept: what came in meanwhile has not been read yet.
      if (now - lastTick > 5 * every) this.#lastHeard = now;
      lastTick = now;
      if (now - this.#lastHeard >= silence) options.onSilence();
    }, every);
    this.#timer.unref();
  }

  /** Something came from the process. */
  heard(): void {
    this.#lastHeard = performance.now();
  }

  /** The process has new work, or is not expected to do any. */
  rested(): void {
    this.#work = { done: '', time: performance.now() };
  }

  /** Looks at what a heartbeat says; `answers` is how many answers have come. */
  beat({ fetched = 0, waiting = 0 }: HeartbeatMessage, answers: number): void {
    const now = performance.now();
    const done = `${fetched} ${answers}`;
    if (waiting === 0 || done !== this.#work.done) this.#work = { done, time: now };
    const idle = now - this.#work.time;
    if (idle >= this.#options.stuck) this.#options.onStuck(idle / 1000);
  }

  /** Ends the watching. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
