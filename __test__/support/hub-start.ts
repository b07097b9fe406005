/** Starts the hub in a process of its own, so that its work is not the test's, and so that it outlives what is killed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import type { HubCommand, HubProcessOptions } from './hub-process.js';
import { repository } from './python.js';

const runner = pathToFileURL(join(repository, 'scripts', 'typescript.mjs')).href;

/** A hub that runs elsewhere. */
export class HubProcess implements AsyncDisposable {
  readonly url: string;
  readonly child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(url: string, child: ChildProcess, lines: AsyncIterator<string>) {
    this.url = url;
    this.child = child;
    this.#lines = lines;
  }

  static async start(options: HubProcessOptions): Promise<HubProcess> {
    const script = join(repository, '__test__', 'support', 'hub-process.ts');
    const child = spawn(process.execPath, ['--import', runner, script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.write(`${JSON.stringify(options)}\n`);
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const { value } = await lines.next();
    if (value === undefined) throw new Error('the hub did not start');
    return new HubProcess(value as string, child, lines);
  }

  /** Tells it something; one command at a time. */
  async tell(command: HubCommand): Promise<unknown> {
    this.child.stdin?.write(`${JSON.stringify(command)}\n`);
    const { value } = await this.#lines.next();
    return JSON.parse(value as string) as unknown;
  }

  async close(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const gone = once(this.child, 'close');
    this.child.stdin?.end();
    await gone;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
