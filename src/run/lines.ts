import { closeSync, createReadStream, fsync, openSync, writeSync } from 'node:fs';
import { stat, truncate } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { diskError, errnoOf, onDisk } from './disk.js';

/**
 * A file of JSON objects, one a line, that is only appended to. A line is in the kernel's hands when `append` returns,
 * so that SIGKILL loses none.
 */
export class LineFile {
  readonly #path: string;
  readonly #descriptor: number;

  private constructor(path: string, descriptor: number) {
    this.#path = path;
    this.#descriptor = descriptor;
  }

  /** Opens a file, cut before its first line that is damaged or that `keeps` refuses. */
  static async open(path: string, keeps: (row: Record<string, unknown>) => boolean): Promise<LineFile> {
    return onDisk(path, async () => {
      await cutBack(path, keeps);
      return new LineFile(path, openSync(path, 'a'));
    });
  }

  append(row: object): void {
    try {
      writeSync(this.#descriptor, `${JSON.stringify(row)}\n`);
    } catch (cause) {
      throw diskError(cause, this.#path);
    }
  }

  /** Waits until the lines are on the device. */
  async sync(): Promise<void> {
    await onDisk(this.#path, () => promisify(fsync)(this.#descriptor));
  }

  close(): void {
    closeSync(this.#descriptor);
  }
}

async function cutBack(path: string, keeps: (row: Record<string, unknown>) => boolean): Promise<void> {
  let kept = 0;
  try {
    const { size } = await stat(path);
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity })) {
      const end = kept + Buffer.byteLength(line) + 1;
      const row = parse(line);
      // A last line without its newline was cut off while it was written.
      if (end > size || row === null || !keeps(row)) break;
      kept = end;
    }
    await truncate(path, kept);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
  }
}

function parse(line: string): Record<string, unknown> | null {
  try {
    const row: unknown = JSON.parse(line);
    return typeof row === 'object' && row !== null ? (row as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
