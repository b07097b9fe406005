/** Starts the hub in a process of its own, so that its work is not the test's, and so that it outlives what is killed. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import type { HubCommand, HubProcessOptions } from './hub-process.js';
import { repository } from './python.js';

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
    const script = await compiled();
    const child = spawn(process.execPath, [script], { stdio: ['pipe', 'pipe', 'inherit'] });
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

/** The script as JavaScript, which every Node runs. */
async function compiled(): Promise<string> {
  const folder = join(repository, 'node_modules', '.cache', 'candlewick', 'hub');
  const temporary = `${folder}.${process.pid}`;
  const compiler = join(repository, 'node_modules', 'typescript', 'bin', 'tsc');
  const source = join(repository, '__test__', 'support', 'hub-process.ts');
  const flags = '--ignoreConfig --noCheck --skipLibCheck --types node --target es2023 --module esnext';
  const how = [...flags.split(' '), '--moduleResolution', 'bundler', '--outDir', temporary];
  await promisify(execFile)(process.execPath, [compiler, source, ...how]);
  await writeFile(join(temporary, 'package.json'), '{"type":"module"}\n');
  await mkdir(folder, { recursive: true });
  // File by file, and each at once: another test may be starting the same hub.
  for (const file of await readdir(temporary)) await rename(join(temporary, file), join(folder, file));
  await rm(temporary, { recursive: true });
  return join(folder, 'hub-process.js');
}
