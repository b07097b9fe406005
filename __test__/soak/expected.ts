/** What a stream must be: from the oracle's documents by the words of the promise, with none of the product's code. */
import type { Batch } from './journal.js';

const ignored = 0xffffffff;
const mask = (1n << 64n) - 1n;

/** The tokens of a whole stream, and a place in it. */
export class Expected {
  readonly tokens: Uint32Array;
  /** Where each document ends. */
  readonly ends: readonly number[];
  /** The rolling hash after each number of targets. */
  readonly #hashes: BigUint64Array;
  readonly #endOfText: number;

  constructor(documents: readonly (readonly number[])[]) {
    this.tokens = Uint32Array.from(documents.flat());
    this.#endOfText = this.tokens.at(-1) as number;
    let end = 0;
    this.ends = documents.map(({ length }) => (end += length));
    let hash = 0xcbf29ce484222325n;
    this.#hashes = BigUint64Array.from(this.tokens, (token, i) => {
      if (i > 0) hash = ((hash ^ BigInt(token)) * 0x100000001b3n) & mask;
      return hash;
    });
  }

  /** Targets in all. */
  get targets(): number {
    return this.tokens.length - 1;
  }

  /** The rolling hash after so many targets. */
  hash(targets: number): string {
    return (this.#hashes[targets] as bigint).toString(16).padStart(16, '0');
  }

  /** The batch of `size` targets that begins with input `at`, of a stream that ends with `documents`. Null behind it. */
  batch(at: number, size: number, documents: number): Batch | null {
    const end = this.ends[Math.min(documents, this.ends.length) - 1] ?? 0;
    const counted = Math.min(size, end - at - 1);
    if (counted <= 0) return null;
    const inputs = new Uint32Array(size).fill(this.#endOfText);
    const targets = new Uint32Array(size).fill(ignored);
    inputs.set(this.tokens.subarray(at, at + counted));
    targets.set(this.tokens.subarray(at + 1, at + 1 + counted));
    return { inputs, targets, counted, hash: this.hash(at + counted) };
  }
}
