import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { CandlewickError, errorFor } from '../errors.js';

/**
 * The operations that a checkpoint's safety rests on. An object, so that a test can make any one of them fail or be
 * the last.
 */
export const disk = {
  async makeDirectory(path: string): Promise<void> {
    await mkdir(path, { recursive: true });
  },
  /** Writes a file and waits until it is on the device. */
  async writeFile(path: string, data: string): Promise<void> {
    const file = await open(path, 'w');
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
  },
  /** Waits until a file's or directory's content is on the device. */
  async sync(path: string): Promise<void> {
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  },
  async rename(from: string, to: string): Promise<void> {
    await rename(from, to);
  },
  async remove(path: string): Promise<void> {
    await rm(path, { recursive: true, force: true });
  },
};

export type Disk = typeof disk;

/** Replaces a file so that a reader sees the old content or the new, never a part. */
export async function replaceFile(path: string, data: string, on: Disk = disk): Promise<void> {
  await onDisk(path, async () => {
    const temporary = `${path}.tmp`;
    await on.writeFile(temporary, data);
    await on.rename(temporary, path);
    await on.sync(dirname(path));
  });
}

/** SHA-256 of a file, in hex. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Names in a directory, sorted; none when it does not exist. */
export async function namesIn(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
}

export async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null)) !== null;
}

/** Whether two paths name the same place. */
export function samePlace(a: string, b: string): boolean {
  return resolve(a) === resolve(b);
}

/** Bytes of the files in a directory. */
export async function sizesIn(path: string): Promise<Map<string, number>> {
  const sizes = new Map<string, number>();
  for (const name of await namesIn(path)) sizes.set(name, (await stat(join(path, name))).size);
  return sizes;
}

export function errnoOf(cause: unknown): string | undefined {
  return cause instanceof Error && 'code' in cause && typeof cause.code === 'string' ? cause.code : undefined;
}

/** Runs `action`; what the operating system refuses becomes DISK_FULL or NOT_WRITABLE naming `path`. */
export async function onDisk<T>(path: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    throw diskError(cause, path);
  }
}

/** The error a user should see for a failed write below `path`. */
export function diskError(cause: unknown, path: string): unknown {
  if (cause instanceof CandlewickError) return cause;
  switch (errnoOf(cause)) {
    case 'ENOSPC':
    case 'EDQUOT':
      return errorFor(
        'DISK_FULL',
        `no space left to write ${path}`,
        'free some space, then run the same command again; the last good checkpoint is untouched',
        cause,
      );
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return errorFor(
        'NOT_WRITABLE',
        `cannot write ${path}: ${(cause as Error).message}`,
        'name a directory that you may write to with --output',
        cause,
      );
    case 'ENOTDIR':
    case 'EEXIST':
      return errorFor(
        'NOT_WRITABLE',
        `cannot make ${path}: a file is in the way`,
        'name another directory with --output',
        cause,
      );
    default:
      return cause;
  }
}
