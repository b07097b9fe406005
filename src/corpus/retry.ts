/** When to ask a source again, and when to give it up. Pure: time and chance come from outside. */

/** What is known of a failure when it is decided upon. */
export interface Failure {
  /** Failures of one kind are counted together. */
  kind: string;
  /** How often in a row it is worth asking again; null: as long as the budget lasts. */
  attempts: number | null;
  /** Seconds that the source asks to wait. */
  retryAfter: number | null;
}

/** To be tried again. All times in seconds. */
export interface Retry {
  /** Number of the attempt since the last progress, from 1. */
  attempt: number;
  delay: number;
  /** Since the first failure after the last progress. */
  waited: number;
  budget: number;
}

/** Why it is given up. */
export interface GivenUp {
  reason: 'attempts' | 'budget' | 'asked to wait longer';
  /** Attempts since the last progress. */
  attempts: number;
  waited: number;
}

export interface RetryOptions {
  /** Seconds without progress after which a source is given up. */
  budget: number;
  /** Seconds: the first delay is between 0 and this; it doubles with each attempt. */
  base?: number;
  /** Seconds that the doubling ends at. */
  longest?: number;
  /** Seconds on a clock that does not go back. */
  now?: () => number;
  /** Between 0 and 1. */
  random?: () => number;
}

/** The longest delay, as a multiple of the first. */
const growth = 120;

/**
 * Exponential backoff with full jitter under a budget of time. The budget runs from the first failure after progress,
 * so that time in which nothing was wanted of the source does not count.
 */
export class RetryPolicy {
  readonly #options: Required<RetryOptions>;
  readonly #kinds = new Map<string, number>();
  #attempts = 0;
  #since: number | null = null;

  constructor(options: RetryOptions) {
    const base = options.base ?? 0.5;
    this.#options = {
      base,
      longest: base * growth,
      now: () => performance.now() / 1000,
      random: Math.random,
      ...options,
    };
  }

  /** Whether something failed since the last progress. */
  get isTroubled(): boolean {
    return this.#since !== null;
  }

  /** Decides on a failure. */
  failed({ attempts, kind, retryAfter }: Failure): Retry | GivenUp {
    const { base, budget, longest, now, random } = this.#options;
    const time = now();
    this.#since ??= time;
    const waited = time - this.#since;
    const ofKind = this.#kinds.get(kind) ?? 0;
    if (attempts !== null && ofKind >= attempts) {
      return { reason: 'attempts', attempts: this.#attempts, waited };
    }
    const left = attempts === null ? budget - waited : Number.POSITIVE_INFINITY;
    if (left <= 0) return { reason: 'budget', attempts: this.#attempts, waited };
    if ((retryAfter ?? 0) > left) {
      return { reason: 'asked to wait longer', attempts: this.#attempts, waited };
    }
    const jittered = random() * Math.min(longest, base * 2 ** this.#attempts);
    this.#kinds.set(kind, ofKind + 1);
    this.#attempts++;
    // One last attempt falls on the end of the budget.
    const delay = Math.max(retryAfter ?? 0, Math.min(jittered, left));
    return { attempt: this.#attempts, delay, waited, budget };
  }

  /** The source does what it is there for. Returns what it took, if anything had failed. */
  progress(): { attempts: number; waited: number } | null {
    if (this.#since === null) return null;
    const took = { attempts: this.#attempts, waited: this.#options.now() - this.#since };
    this.#since = null;
    this.#attempts = 0;
    this.#kinds.clear();
    return took;
  }
}

/** Whether it is given up. */
export function isGivenUp(decision: Retry | GivenUp): decision is GivenUp {
  return 'reason' in decision;
}
