import { open, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { RowParser } from './columns.js';

const CHUNK = 1 << 22;
/** Bytes before the end of what was read that tell whether the file is still the one that was read. */
const REMEMBERED = 256;

/**
 * Follows a `metrics.jsonl` that grows. A run that resumes cuts its file back and writes on: what was read then is
 * no longer in the file, and everything is read again.
 */
export class MetricsTail {
  readonly #path: string;
  #parser = new RowParser();
  #offset = 0;
  #inode = 0;
  #last = Buffer.alloc(0);

  constructor(path: string) {
    this.#path = path;
  }

  get steps(): RowParser['steps'] {
    return this.#parser.steps;
  }

  get evaluations(): RowParser['evaluations'] {
    return this.#parser.evaluations;
  }

  /** Reads what is new; whether there was anything. A file that is not there (yet) has no rows. */
  async poll(): Promise<boolean> {
    const found = await stat(this.#path).catch(() => null);
    if (found === null) return this.#forget();
    if (found.size === this.#offset && found.ino === this.#inode) return false;
    const file = await open(this.#path, 'r');
    try {
      let changed = false;
      if (found.size < this.#offset || found.ino !== this.#inode || !(await this.#continues(file))) {
        changed = this.#forget();
        this.#inode = found.ino;
      }
      return (await this.#read(file)) || changed;
    } finally {
      await file.close();
    }
  }

  #forget(): boolean {
    const had = this.#offset > 0;
    this.#parser = new RowParser();
    this.#offset = 0;
    this.#last = Buffer.alloc(0);
    return had;
  }

  /** Whether what was read last still lies where it lay. */
  async #continues(file: FileHandle): Promise<boolean> {
    const { length } = this.#last;
    const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, this.#offset - length);
    return bytesRead === length && buffer.equals(this.#last);
  }

  async #read(file: FileHandle): Promise<boolean> {
    const begin = this.#offset;
    let buffer = Buffer.allocUnsafe(CHUNK);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, buffer.length, this.#offset);
      if (bytesRead === 0) break;
      const used = this.#parser.push(buffer.subarray(0, bytesRead));
      if (used > 0) {
        this.#offset += used;
        this.#last = Buffer.from(buffer.subarray(Math.max(0, used - REMEMBERED), used));
      } else if (bytesRead === buffer.length) {
        buffer = Buffer.allocUnsafe(buffer.length * 2);
      } else break;
    }
    return this.#offset > begin;
  }
}
