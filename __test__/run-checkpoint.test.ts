import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CandlewickError } from '../src/errors.js';
import { CheckpointStore, namedCheckpoint, verify } from '../src/run/checkpoint.js';
import { disk } from '../src/run/disk.js';
import type { Disk } from '../src/run/disk.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-checkpoint-'));
});
afterEach(async () => {
  await rm(root, { recursive: true });
});

const fill = (content: string) => async (directory: string) => {
  await writeFile(join(directory, 'model.safetensors'), content);
  await writeFile(join(directory, 'stream.json'), '{}');
  return {};
};
const save = (store: CheckpointStore, step: number, keep = 10) =>
  store.save(step, 'digest', () => ({ last: keep, every: null, best: null }), fill(`weights ${step}`));
const silent = () => undefined;

/** A disk whose operations fail from the n-th on, as if the process had been killed before it. */
function dyingDisk(after: number): Disk {
  let left = after;
  const operations = Object.entries(disk).map(([name, operation]) => [
    name,
    async (...args: [string, string]) => {
      if (left-- <= 0) throw new Error('killed');
      await operation(...args);
    },
  ]);
  return Object.fromEntries(operations) as Disk;
}

/** A disk on which one kind of operation is refused by the operating system. */
function refusingDisk(operation: keyof Disk, code: string): Disk {
  return {
    ...disk,
    [operation]: async () => {
      throw Object.assign(new Error(code), { code });
    },
  };
}

async function rejection(promise: Promise<unknown>): Promise<CandlewickError> {
  const cause: unknown = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (cause instanceof CandlewickError) return cause;
  throw cause ?? new Error('nothing was thrown');
}

describe('a checkpoint', () => {
  it('verifies after it was saved, with sizes and checksums of every file', async () => {
    const store = new CheckpointStore(root);
    const { path, manifest } = await save(store, 100);
    expect(path).toBe(join(root, 'step-00000100'));
    expect(Object.keys(manifest.files)).toEqual(['model.safetensors', 'stream.json']);
    expect(await store.newest(silent)).toMatchObject({ path, step: 100 });
    expect(await readdir(root)).toEqual(['step-00000100']);
  });

  it('survives the death of the process before every operation of the next save', async () => {
    await save(new CheckpointStore(root), 1, 1);
    for (let after = 0; ; after++) {
      const outcome = await save(new CheckpointStore(root, dyingDisk(after)), 2, 1).then(
        () => 'saved',
        (cause: unknown) => (cause as Error).message,
      );
      const store = new CheckpointStore(root);
      const newest = await store.newest(silent);
      expect([1, 2], `after ${after} operations`).toContain(newest?.step);
      if (outcome === 'saved') {
        expect(newest?.step).toBe(2);
        expect(after).toBeGreaterThan(8);
        break;
      }
      await store.clean();
      await save(store, 1, 1);
      await rm(join(root, 'step-00000002'), { recursive: true, force: true });
    }
  });

  it.each(['model.safetensors', 'stream.json', 'manifest.json'])(
    'with a flipped byte in %s is skipped, loudly, for the one before',
    async (name) => {
      const store = new CheckpointStore(root);
      await save(store, 1);
      const { path } = await save(store, 2);
      const bytes = await readFile(join(path, name));
      bytes[0] = (bytes[0] ?? 0) ^ 1;
      await writeFile(join(path, name), bytes);
      const skipped: string[] = [];
      const newest = await store.newest((where, reason) => skipped.push(`${where}: ${reason}`));
      expect(newest?.step).toBe(1);
      expect(skipped).toHaveLength(1);
      expect(skipped[0]).toContain(name);
    },
  );

  it('that was truncated is skipped', async () => {
    const store = new CheckpointStore(root);
    await save(store, 1);
    const { path } = await save(store, 2);
    await truncate(join(path, 'model.safetensors'), 3);
    expect(await verify(path)).toEqual({ reason: 'model.safetensors has 3 bytes instead of 9' });
    expect((await store.newest(silent))?.step).toBe(1);
  });

  it('of a step that is saved again replaces a broken one', async () => {
    const store = new CheckpointStore(root);
    const { path } = await save(store, 2);
    await rm(join(path, 'manifest.json'));
    await save(store, 2);
    expect((await store.newest(silent))?.step).toBe(2);
  });
});

describe('old checkpoints', () => {
  it('are deleted beyond keep_last, oldest first', async () => {
    const store = new CheckpointStore(root);
    for (const step of [1, 2, 3, 4]) await save(store, step, 2);
    expect(await readdir(root)).toEqual(['step-00000003', 'step-00000004']);
  });

  it('are kept when the new one fails, even with keep_last 1', async () => {
    await save(new CheckpointStore(root), 1, 1);
    await rejection(save(new CheckpointStore(root, refusingDisk('rename', 'ENOSPC')), 2, 1));
    expect(await readdir(root)).toEqual(['step-00000001']);
  });

  it('of a course that was abandoned do not come back', async () => {
    const store = new CheckpointStore(root);
    for (const step of [1, 2, 3]) await save(store, step);
    await store.abandonAfter(1);
    expect((await store.newest(silent))?.step).toBe(1);
    await save(store, 2);
    expect(await readdir(root)).toEqual(['step-00000001', 'step-00000002']);
  });
});

describe('a disk that refuses', () => {
  it.each([
    ['ENOSPC', 'DISK_FULL'],
    ['EDQUOT', 'DISK_FULL'],
    ['EACCES', 'NOT_WRITABLE'],
    ['EROFS', 'NOT_WRITABLE'],
  ])('%s becomes %s, with nothing half written', async (errno, code) => {
    for (const operation of ['writeFile', 'sync', 'rename'] as const) {
      const error = await rejection(save(new CheckpointStore(root, refusingDisk(operation, errno)), 1));
      expect(error.code).toBe(code);
      expect(error.exitCode).toBe(3);
      expect(error.hint).not.toBe('');
      expect(await readdir(root)).toEqual([]);
    }
  });
});

describe('a checkpoint that is named', () => {
  it('may be the directory of a run', async () => {
    await save(new CheckpointStore(join(root, 'checkpoints')), 7);
    expect((await namedCheckpoint(root, silent)).step).toBe(7);
    expect((await namedCheckpoint(join(root, 'checkpoints', 'step-00000007'), silent)).step).toBe(7);
  });

  it('that is damaged or missing is an error', async () => {
    const { path } = await save(new CheckpointStore(join(root, 'checkpoints')), 7);
    await writeFile(join(path, 'stream.json'), '[]');
    expect((await rejection(namedCheckpoint(path, silent))).code).toBe('CHECKPOINT_CORRUPT');
    expect((await rejection(namedCheckpoint(root, silent))).code).toBe('CHECKPOINT_CORRUPT');
    expect((await rejection(namedCheckpoint(join(root, 'nothing'), silent))).code).toBe('CONFIG_INVALID');
  });
});
