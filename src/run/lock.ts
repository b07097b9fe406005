import { randomUUID } from 'node:crypto';
import { linkSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { utimes } from 'node:fs/promises';
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
    await onDisk(path, async () => take(path, directory, content));
    return new Lock(path, content);
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

/** Makes `path` a file of that content, unless a process that lives has made it. */
function take(path: string, directory: string, content: string): void {
  const own = `${path}.${randomUUID()}`;
  try {
    writeFileSync(own, content);
    for (let attempt = 0; attempt < 10; attempt++) {
      if (claim(path, own, content)) return;
      refuseIfHeld(path, directory);
      // One at a time looks again whether the lock is stale, and replaces it: nobody else does meanwhile.
      const turn = `${path}.takeover`;
      if (!claim(turn, own, content)) {
        refuseIfHeld(turn, directory);
        // Its process died in the few lines below.
        rmSync(turn, { force: true });
        continue;
      }
      try {
        refuseIfHeld(path, directory);
        if (read(path) === null) continue;
        renameSync(own, path);
        return;
      } finally {
        rmSync(turn, { force: true });
      }
    }
  } finally {
    rmSync(own, { force: true });
  }
  throw errorFor('OUTPUT_IN_USE', `${directory}: ${path} changes hands`, 'start one process at a time');
}

/** Names `own` also `path`, unless there is such a file: whoever reads that finds all of its content. */
function claim(path: string, own: string, content: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'EEXIST') return false;
  }
  try {
    // Some network file systems have no links; there a reader may find a part of it.
    writeFileSync(path, content, { flag: 'wx' });
    return true;
  } catch (cause) {
    if (errnoOf(cause) === 'EEXIST') return false;
    throw cause;
  }
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

function refuseIfHeld(path: string, directory: string): void {
  const holder = parseHolder(read(path) ?? '');
  if (holder === null || !isAlive(holder, path)) return;
  throw errorFor(
    'OUTPUT_IN_USE',
    `${directory} is in use by process ${holder.pid}${holder.host === hostname() ? '' : ` on ${holder.host}`}`,
    'wait until it ends, or name another directory with --output',
  );
}

function isAlive(holder: Holder, path: string): boolean {
  if (holder.host !== hostname()) {
    const refreshed = statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    return Date.now() - refreshed < FOREIGN_STALE_MS;
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
export function isHeld(path: string): boolean {
  const holder = parseHolder(read(path) ?? '');
  return holder !== null && isAlive(holder, path);
}
