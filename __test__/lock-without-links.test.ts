/** The lock of a directory on a file system that has no links, as some networks' have none. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { Lock } from '../src/run/lock.js';

vi.mock('node:fs', async (original) => ({
  ...(await original<object>()),
  linkSync: () => {
    throw Object.assign(new Error('no links here'), { code: 'EPERM' });
  },
}));

it('keeps a second one out until the first lets go', async () => {
  const root = await mkdtemp(join(tmpdir(), 'candlewick-lock-'));
  const path = join(root, 'run.lock');
  const first = await Lock.acquire(path, root);
  await expect(Lock.acquire(path, root)).rejects.toMatchObject({ code: 'OUTPUT_IN_USE' });
  first.release();
  (await Lock.acquire(path, root)).release();
  expect(await readdir(root)).toEqual([]);
  await rm(root, { recursive: true });
});
