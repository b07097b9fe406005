/** Random numbers of a seed: a case is the same wherever and whenever it is run. */
import { createHash } from 'node:crypto';

export class Random {
  readonly #seed: string;
  #drawn = 0;

  constructor(seed: string) {
    this.#seed = seed;
  }

  /** A whole number from 0 up to, not including, `bound`. */
  below(bound: number): number {
    const digest = createHash('md5')
      .update(`${this.#seed}|${this.#drawn++}`)
      .digest();
    return Math.floor((digest.readUInt32LE(0) / 2 ** 32) * bound);
  }

  /** Whether something with one chance in `bound` happens. */
  oneIn(bound: number): boolean {
    return this.below(bound) === 0;
  }

  /** One of some values. */
  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }
}
