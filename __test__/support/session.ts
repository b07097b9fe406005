/** streamer.py run by hand, without the native side: what is asked and what comes back. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { documentsOf, type Frame, FrameReader } from './frames.js';
import { python, repository } from './python.js';

export const streamerScript = join(repository, 'src', 'corpus', 'streamer.py');

/** Everything that a streamer announces in `ready`. */
export interface Ready {
  dataset: string;
  config_name: string | null;
  split: string;
  revision: string | null;
  text_column: string;
  columns: string[];
  files: string[];
  row_groups: boolean;
  total_rows: number | null;
  versions: Record<string, string>;
}

/** What an error frame says. */
export interface Complaint {
  code: string;
  message: string;
  hint: string;
  retryable: boolean;
  class: string;
  id: number | null;
}

/** A running streamer. */
export class Session implements AsyncDisposable {
  readonly child: ChildProcess;
  /** Frames that came and were not asked for: loading, progress, heartbeats. */
  readonly aside: Frame[] = [];
  stderr = '';
  readonly exit: Promise<{ code: number | null; signal: string | null }>;
  readonly #frames: Frame[] = [];
  readonly #waiting: (() => void)[] = [];
  #ended = false;
  #broken: unknown = null;
  #nextId = 0;

  constructor(args: string[], env: Record<string, string | undefined> = {}, interpreter = python) {
    this.child = spawn(interpreter, [streamerScript, ...args], {
      stdio: ['pipe', 'ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...env },
    });
    this.child.stdin?.on('error', () => {});
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    const reader = new FrameReader();
    const data = this.child.stdio[3] as Readable;
    data.on('data', (chunk: Buffer) => {
      try {
        this.#frames.push(...reader.push(chunk));
      } catch (error) {
        this.#broken = error;
      }
      this.#wake();
    });
    this.child.on('error', (error) => {
      this.#broken = error;
      this.#wake();
    });
    this.exit = new Promise((resolve) => {
      this.child.on('close', (code, signal) => {
        this.#ended = true;
        this.#wake();
        resolve({ code, signal });
      });
    });
  }

  /** The next frame of one of these kinds, or an error frame; null when the streamer has ended. */
  async next(...wanted: string[]): Promise<Frame | null> {
    for (;;) {
      if (this.#broken) throw this.#broken;
      const frame = this.#frames.shift();
      if (frame && (wanted.includes(frame.kind) || frame.kind === 'error')) return frame;
      if (frame) this.aside.push(frame);
      else if (this.#ended) return null;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** What `ready` says; fails for an error frame. */
  async ready(): Promise<Ready> {
    const frame = await this.next('ready');
    if (frame?.kind !== 'ready') throw new Error(`not ready: ${JSON.stringify(frame?.json)} ${this.stderr}`);
    return frame.json as unknown as Ready;
  }

  /** The error frame that has to come. */
  async complaint(): Promise<Complaint> {
    const frame = await this.next('ready', 'batch', 'file');
    if (frame?.kind !== 'error')
      throw new Error(`no error, but ${JSON.stringify(frame?.json)} ${this.stderr}`);
    return frame.json as unknown as Complaint;
  }

  /** Sends a request; returns its id. */
  send(request: object): number {
    const id = this.#nextId++;
    this.say({ id, ...request });
    return id;
  }

  /** Sends a line as it is. */
  say(message: object): void {
    (this.child.stdin as Writable).write(`${JSON.stringify(message)}\n`);
  }

  /** Rows of each group of a file. */
  async groups(file: number): Promise<number[] | null> {
    this.send({ op: 'file', file });
    const frame = await this.next('file');
    if (frame?.kind !== 'file') throw new Error(`no shape: ${JSON.stringify(frame?.json)}`);
    return frame.json.row_groups as number[] | null;
  }

  /** The frames that answer one read. */
  async read(file: number, group: number, row = 0, rows = 1000): Promise<Frame[]> {
    this.send({ op: 'read', file, group, row, rows });
    const frames: Frame[] = [];
    let left = rows;
    for (;;) {
      const frame = await this.next('batch');
      if (frame?.kind !== 'batch') throw new Error(`no batch: ${JSON.stringify(frame?.json)} ${this.stderr}`);
      frames.push(frame);
      left -= frame.json.rows as number;
      if (frame.json.end || left === 0) return frames;
    }
  }

  /** Every document of a file in order; nulls are empty. */
  async documents(file: number): Promise<string[]> {
    const found: string[] = [];
    const groups = await this.groups(file);
    if (groups) {
      for (const [group, rows] of groups.entries()) {
        found.push(...(await this.read(file, group, 0, rows)).flatMap(documentsOf));
      }
      return found;
    }
    for (let turn = 0; ; turn++) {
      const frames = await this.read(file, turn);
      found.push(...frames.flatMap(documentsOf));
      if (frames.at(-1)?.json.eof) return found;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.stdin?.end();
    await this.exit;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
