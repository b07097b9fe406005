/** The pipe that a streamer's data comes through. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';
import type { Readable } from 'node:stream';
import { native } from '../native/index.js';

const bufferBytes = 1 << 20;

/**
 * A pipe of a child's own for data, read into one buffer that is used again and again. What Node reads from the pipes
 * it makes itself arrives in a new buffer each time, of which tens of megabytes wait for the garbage collector.
 *
 * Where there is no such pipe (Windows), it is one of Node's.
 */
export class DataPipe {
  /** What the child is to be given in its `stdio`. */
  readonly stdio: number | 'pipe';
  readonly #read: number | null;

  constructor() {
    const pipe = native().createPipe();
    this.stdio = pipe?.write ?? 'pipe';
    this.#read = pipe?.read ?? null;
  }

  /**
   * Reads what `child` writes to descriptor `index` until it and whoever inherited it have closed it; resolves then.
   * A chunk is valid during the call that it is handed to. Call it right after the child was started, or failed to.
   */
  async drain(child: ChildProcess, index: number, onChunk: (chunk: Uint8Array) => void): Promise<void> {
    let stream: Readable;
    if (typeof this.stdio === 'number' && this.#read !== null) {
      // The child has its copy, or will never have one.
      closeSync(this.stdio);
      const buffer = new Uint8Array(bufferBytes);
      const callback = (count: number) => {
        onChunk(buffer.subarray(0, count));
        return true;
      };
      const options: SocketConstructorOpts & ConnectOpts = {
        fd: this.#read,
        readable: true,
        writable: false,
        onread: { buffer, callback },
      };
      stream = new Socket(options);
      stream.resume();
    } else {
      stream = child.stdio[index] as Readable;
      stream.on('data', onChunk);
    }
    // A pipe that breaks means that the process is gone; its exit tells the rest.
    stream.on('error', () => {});
    await once(stream, 'close');
  }
}
