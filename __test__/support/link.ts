/** The native link's part in plain TypeScript: enough of it to test supervision without the native module. */
import { errorFor } from '../../src/errors.js';
import type { NativeLink } from '../../src/native/binding.js';
import { documentsOf, type Frame, FrameReader } from './frames.js';

interface Pending {
  file: number;
  group: number;
  row: number;
  rows: number;
  documents: string[];
  resolve(documents: string[]): void;
  reject(error: Error): void;
}

/** A link that a test can ask for rows. */
export class PlainLink implements NativeLink {
  /** Called with every batch frame, before it is taken in. */
  onBatch: (frame: Frame) => void = () => {};
  #reader = new FrameReader();
  readonly #pending = new Map<number, Pending>();
  #outbox: string[] = [];
  #waiting: ((lines: string | null) => void) | null = null;
  #closed = false;
  #failure: Error | null = null;
  #nextId = 0;

  /** The documents of `rows` rows of a group or turn. */
  read(file: number, group: number, rows: number): Promise<string[]> {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      const pending = { file, group, row: 0, rows, documents: [], resolve, reject };
      this.#pending.set(id, pending);
      this.#send(id, pending);
    });
  }

  push(chunk: Uint8Array): string | null {
    const messages: object[] = [];
    for (const frame of this.#reader.push(Buffer.from(chunk))) {
      if (frame.kind === 'batch') this.#take(frame);
      else if (frame.kind !== 'file') messages.push({ kind: frame.kind, ...frame.json });
    }
    return messages.length > 0 ? JSON.stringify(messages) : null;
  }

  nextWrites(): Promise<string | null> {
    if (this.#outbox.length > 0 || this.#closed) return Promise.resolve(this.#drain());
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  restart(): void {
    this.#reader = new FrameReader();
    this.#outbox = [];
    for (const [id, pending] of this.#pending) this.#send(id, pending);
  }

  fail(code: string, message: string, hint: string): void {
    this.#failure = errorFor(code, message, hint);
    for (const { reject } of this.#pending.values()) reject(this.#failure);
    this.#pending.clear();
  }

  close(): void {
    this.#closed = true;
    this.fail('ABORTED', 'closed', 'none');
    this.#wake();
  }

  #take(frame: Frame): void {
    this.onBatch(frame);
    const { end, id, row } = frame.json as { end: boolean; id: number; row: number };
    const pending = this.#pending.get(id);
    if (!pending || pending.row !== row)
      throw errorFor('PROTOCOL_VIOLATION', `row ${row} was not due`, 'none');
    const documents = documentsOf(frame);
    pending.documents.push(...documents);
    pending.row += documents.length;
    pending.rows -= documents.length;
    if (!end && pending.rows > 0) return;
    this.#pending.delete(id);
    pending.resolve(pending.documents);
  }

  #send(id: number, { file, group, row, rows }: Pending): void {
    this.#outbox.push(`${JSON.stringify({ id, op: 'read', file, group, row, rows })}\n`);
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.(this.#drain());
  }

  #drain(): string | null {
    if (this.#closed) return null;
    return this.#outbox.splice(0).join('');
  }
}
