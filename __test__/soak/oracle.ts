/** The Python process that makes datasets and says what must come of them, apart from the product. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { python, repository } from '../support/python.js';
import { peerPackages } from '../support/reference.js';
import type { DataFile } from './dataset.js';

export interface EpochRequest {
  root: string;
  files: readonly string[];
  seed: number;
  epoch: number;
  window: number;
  held_out: number;
  /** Path of a tokenizer.json. */
  tokenizer: string;
}

/** One process for all cases: its imports take longer than most of what it is asked. */
export class Oracle {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #packages: string;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(child: ChildProcess, lines: AsyncIterator<string>, packages: string) {
    this.#child = child;
    this.#lines = lines;
    this.#packages = packages;
  }

  static async start(): Promise<Oracle> {
    const packages = await peerPackages();
    const child = spawn(python, [join(repository, '__test__/soak/oracle.py')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    return new Oracle(child, lines, packages);
  }

  /** Writes the files under a folder. */
  async write(root: string, files: readonly DataFile[]): Promise<void> {
    await this.#ask({ write: files.map((file) => ({ ...file, path: join(root, file.path) })) });
  }

  /** The documents of an epoch as token ids, end-of-text included, in the order of training. */
  async epoch(request: EpochRequest): Promise<number[][]> {
    const reference = { ...request, packages: this.#packages, tokens: 0, ids: true };
    return ((await this.#ask({ reference })) as { ids: number[][] }).ids;
  }

  /** Ends it. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = once(this.#child, 'close');
    this.#child.stdin?.end();
    await gone;
  }

  /** One request after the other: answers come in the order of the requests. */
  #ask(request: object): Promise<unknown> {
    const answer = this.#last.then(async () => {
      this.#child.stdin?.write(`${JSON.stringify(request)}\n`);
      const { value } = await this.#lines.next();
      if (value === undefined) throw new Error('the oracle ended; what it said is on stderr');
      return JSON.parse(value as string) as unknown;
    });
    this.#last = answer.catch(() => {});
    return answer;
  }
}
