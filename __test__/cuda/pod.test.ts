/** What is packed for machines with a GPU and without Node, on a GPU that the processor emulates. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { emulatedCuda } from '../support/fake-cuda.js';
import { repository } from '../support/python.js';

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'candlewick-pod-test-'));
  emulatedCuda(join(root, 'cuda'));
}, 600_000);
afterAll(() => rmSync(root, { recursive: true, force: true }));

it('trains, is killed, goes on exactly and writes text, by the commands', { timeout: 600_000 }, async () => {
  const cuda = join(root, 'cuda');
  const child = spawn(process.execPath, [join(repository, 'bench/pod/check.mjs'), '--tiny'], {
    cwd: root,
    env: {
      ...process.env,
      TMPDIR: root,
      CANDLEWICK_POD_PACKAGE: repository,
      LD_LIBRARY_PATH: cuda,
      CUDA_HOME: cuda,
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const [code] = await once(child, 'close');
  expect(code, said).toBe(0);
  expect(said).toMatch(/\n4 passed, 0 failed\n$/);
});
