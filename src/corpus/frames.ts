/** Frames of the streamer's pipe, as far as supervision looks at them: what kind, how long. */

/** Bytes of a frame's header. */
export const headerBytes = 28;

const kindAt = 5;
const jsonLengthAt = 12;
const binaryLengthAt = 16;
const answerKinds = new Set([3, 4]);

/**
 * Counts the answers (shapes of files and batches) that have come completely. The native side checks frames; this
 * only walks over them, so that supervision knows whether a streamer does what it is there for.
 */
export class AnswerCounter {
  /** Answers so far. */
  answers = 0;
  readonly #header = new Uint8Array(headerBytes);
  #filled = 0;
  #left = 0;

  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#filled < headerBytes) {
        const part = chunk.subarray(at, at + headerBytes - this.#filled);
        this.#header.set(part, this.#filled);
        this.#filled += part.length;
        at += part.length;
        if (this.#filled < headerBytes) return;
        const view = new DataView(this.#header.buffer);
        this.#left = view.getUint32(jsonLengthAt, true) + Number(view.getBigUint64(binaryLengthAt, true));
      }
      const body = Math.min(this.#left, chunk.length - at);
      this.#left -= body;
      at += body;
      if (this.#left > 0) return;
      if (answerKinds.has(this.#header[kindAt] ?? 0)) this.answers++;
      this.#filled = 0;
    }
  }
}
