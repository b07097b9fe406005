import { errorFor } from '../errors.js';
import type { NativeDecodeStream } from '../native/binding.js';

/** Ids as programs have them. */
export type Ids = Uint32Array | readonly number[];

/**
 * Text from ids as they come, complete characters only: what a token has of a character is held back until the rest
 * comes. All pieces put together are `decode` of all ids.
 */
export class DecodeStream {
  readonly #native: NativeDecodeStream;

  /** Use {@link Tokenizer.decodeStream}. */
  constructor(handle: NativeDecodeStream) {
    this.#native = handle;
  }

  /** The text that one more id, or several, complete; often empty. An id outside the vocabulary adds nothing. */
  push(ids: number | Ids): string {
    return this.#native.push(typeof ids === 'number' ? toIds([ids]) : toIds(ids));
  }

  /** What is still held back: U+FFFD for a character that never became complete. The stream begins anew after it. */
  finish(): string {
    return this.#native.finish();
  }

  /** The pieces of text, none of them empty, that ids from a generator, a stream or an array give; ends with `finish`. */
  async *pieces(
    ids: AsyncIterable<number | Ids> | Iterable<number | Ids>,
  ): AsyncGenerator<string, void, undefined> {
    for await (const some of ids) {
      const piece = this.push(some);
      if (piece !== '') yield piece;
    }
    const rest = this.finish();
    if (rest !== '') yield rest;
  }
}

/** Ids as the native side takes them. Throws USAGE for what is not an id. */
export function toIds(ids: Ids): Uint32Array {
  if (ids instanceof Uint32Array) return ids;
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id > 0xffff_ffff) {
      throw errorFor('USAGE', `${String(id)} is not the id of a token`, 'ids are whole numbers, 0 or more');
    }
  }
  return Uint32Array.from(ids);
}
