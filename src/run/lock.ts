import { readFileSync, rmSync } from 'node:fs';
import { open, readFile, rename, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { errorFor } from '../errors.js';
import { errnoOf, onDisk } from './disk.js';

interface Holder {
  pid: number;
  host: string;
  /** Start of the process in the kernel's ticks: a reused pid has another. */
  started: string | null;
}

const REFRESH_MS = 5_000;
/** A lock from another host counts as abandoned when it was not refreshed for so long. */
const FOREIGN_STALE_MS = 60_000;

/** Keeps a second process out of a directory; the lock of a process that died is taken over. */
export class Lock {
  readonly #path: string;
  readonly #content: string;
  readonly #timer: NodeJS.Timeout;
  readonly #onExit = () => this.release();

  private constructor(path: string, content: string) {
    this.#path = path;
    this.#content = content;
    this.#timer = setInterval(() => {
      const now = new Date();
      utimes(path, now, now).catch(() => undefined);
    }, REFRESH_MS);
    this.#timer.unref();
    process.once('exit', this.#onExit);
  }

  /** Throws OUTPUT_IN_USE while another process holds `path`. */
  static async acquire(path: string, directory: string): Promise<Lock> {
    const content = JSON.stringify({ pid: process.pid, host: hostname(), started: startOf(process.pid) });
    for (let attempt = 0; attempt < 10; attempt++) {
      if (await onDisk(path, () => create(path, content))) return new Lock(path, content);
      const found = await readFile(path, 'utf8').catch(() => null);
      if (found === null) continue;
      const holder = parseHolder(found);
      if (holder !== null && (await isAlive(holder, path))) {
        throw errorFor(
          'OUTPUT_IN_USE',
          `${directory} is in use by process ${holder.pid}${holder.host === hostname() ? '' : ` on ${holder.host}`}`,
          'wait until it ends, or name another directory with --output',
        );
      }
      await setAside(path, found);
    }
    throw errorFor('OUTPUT_IN_USE', `${directory}: ${path} changes hands`, 'start one process at a time');
  }

  /** Gives the directory free. Safe to call twice. */
  release(): void {
    clearInterval(this.#timer);
    process.off('exit', this.#onExit);
    try {
      if (readFileSync(this.#path, 'utf8') === this.#content) rmSync(this.#path);
    } catch {
      // Already gone, with its directory perhaps: nothing is held any more.
    }
  }
}

async function create(path: string, content: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    await file.writeFile(content);
    await file.close();
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'EEXIST') return false;
    throw cause;
  }
}

/** Moves a stale lock away, and back if it is no longer the one that was found stale. */
async function setAside(path: string, found: string): Promise<void> {
  const aside = `${path}.${process.pid}`;
  try {
    await rename(path, aside);
    if ((await readFile(aside, 'utf8')) === found) rmSync(aside);
    else await rename(aside, path);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw cause;
  }
}

async function isAlive(holder: Holder, path: string): Promise<boolean> {
  if (holder.host !== hostname()) {
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: 0 }));
    return Date.now() - mtimeMs < FOREIGN_STALE_MS;
  }
  try {
    process.kill(holder.pid, 0);
  } catch (cause) {
    if (errnoOf(cause) === 'ESRCH') return false;
  }
  const started = startOf(holder.pid);
  return started === null || holder.started === null || started === holder.started;
}

function parseHolder(text: string): Holder | null {
  try {
    const { pid, host, started } = JSON.parse(text) as Partial<Holder>;
    if (typeof pid !== 'number' || typeof host !== 'string') return null;
    return { pid, host, started: started ?? null };
  } catch {
    return null;
  }
}

/** Field 22 of /proc/<pid>/stat; the command before it may hold spaces and parentheses. */
function startOf(pid: number): string | null {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null;
  } catch {
    return null;
  }
}

/** Whether a process that lives holds the lock at `path`. Nothing is taken and nothing set aside. */
export async function isHeld(path: string): Promise<boolean> {
  const holder = parseHolder(await readFile(path, 'utf8').catch(() => ''));
  return holder !== null && (await isAlive(holder, path));
}
