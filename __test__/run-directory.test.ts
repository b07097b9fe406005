import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Lock } from '../src/run/lock.js';
import { RunDirectory } from '../src/run/directory.js';
import { MetricsFile } from '../src/run/metrics.js';
import type { StepRow } from '../src/run/metrics.js';
import type { Race } from './support/lock-racer.js';
import { repository } from './support/python.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-run-'));
});
afterEach(async () => {
  await rm(root, { recursive: true });
});

describe('the lock of a directory', () => {
  it('keeps a second run out until the first lets go', async () => {
    const first = await RunDirectory.open(root);
    await expect(RunDirectory.open(root)).rejects.toMatchObject({ code: 'OUTPUT_IN_USE', exitCode: 2 });
    await first.release();
    await (await RunDirectory.open(root)).release();
  });

  it('of another living process holds, and of a dead one does not', async () => {
    const path = join(root, 'run.lock');
    const other = spawn(process.execPath, ['-e', 'process.stdin.resume()'], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    await once(other, 'spawn');
    await writeFile(path, JSON.stringify({ pid: other.pid, host: hostname(), started: null }));
    await expect(Lock.acquire(path, root)).rejects.toMatchObject({ code: 'OUTPUT_IN_USE' });
    other.kill('SIGKILL');
    await once(other, 'exit');
    (await Lock.acquire(path, root)).release();
  });

  it('is not held by a process that only has the same number', async () => {
    const path = join(root, 'run.lock');
    await writeFile(path, JSON.stringify({ pid: process.pid, host: hostname(), started: '1' }));
    (await Lock.acquire(path, root)).release();
  });

  const dead = JSON.stringify({ pid: 2 ** 22 + 1, host: hostname(), started: '1' });
  it.each([
    ['there is none', null],
    ["it is nobody's", 'not even JSON'],
    ['its process died', dead],
  ])('belongs to one of many that try at once where %s', async (_, stale) => {
    const shared = (numbers: number) => new Int32Array(new SharedArrayBuffer(4 * numbers));
    const [met, won, racers] = [shared(1), shared(500), 4];
    const path = join(root, 'run.lock');
    const threads = Array.from({ length: racers }, (_, at) => {
      const race: Race = { root, path, stale, racers, first: at === 0, met, won };
      return new Worker(join(repository, '__test__/support/lock-racer.ts'), {
        workerData: race,
        execArgv: ['--import', join(repository, 'scripts/typescript.mjs')],
      });
    });
    await Promise.all(threads.map((thread) => once(thread, 'exit')));
    expect(Array.from(won)).toEqual(Array.from(won, () => 1));
    expect(await readdir(root)).toEqual([]);
  });

  it('whose process died while another took it over is taken over', async () => {
    const path = join(root, 'run.lock');
    await writeFile(path, dead);
    await writeFile(`${path}.takeover`, dead);
    const lock = await Lock.acquire(path, root);
    expect(await readdir(root)).toEqual(['run.lock']);
    lock.release();
  });

  it('of another host holds as long as it is refreshed', async () => {
    const path = join(root, 'run.lock');
    await writeFile(path, JSON.stringify({ pid: 1, host: 'elsewhere', started: null }));
    await expect(Lock.acquire(path, root)).rejects.toThrow('process 1 on elsewhere');
  });
});

describe('a run directory', () => {
  it('that is a file is NOT_WRITABLE', async () => {
    await writeFile(join(root, 'file'), '');
    for (const path of [join(root, 'file'), join(root, 'file', 'below')]) {
      await expect(RunDirectory.open(path)).rejects.toMatchObject({ code: 'NOT_WRITABLE', exitCode: 3 });
    }
  });

  it('that holds something else is refused', async () => {
    await writeFile(join(root, 'model.safetensors'), '');
    const directory = await RunDirectory.open(root);
    await expect(directory.readConfig()).rejects.toMatchObject({ code: 'RESUME_MISMATCH' });
    await directory.release();
  });
});

describe('metrics.jsonl', () => {
  const row = (step: number): StepRow => ({
    step,
    loss: 1,
    grad_norm: 1,
    lr: 1,
    tokens: step,
    documents: step,
    epoch: 1,
    tokens_per_second: 1,
    samples_per_second: 1,
    data_wait: 0,
    stream_hash: 'é',
    time: 0,
  });
  const evaluation = (step: number) => ({ step, eval_loss: 1, bits_per_byte: 1, time: 0 });
  const steps = async (path: string) =>
    (await readFile(path, 'utf8'))
      .split('\n')
      .filter(Boolean)
      .map((line) => (JSON.parse(line) as StepRow).step);

  it('is cut back to the step that the run goes on from', async () => {
    const path = join(root, 'metrics.jsonl');
    const first = await MetricsFile.open(path, 0);
    for (const step of [1, 2]) first.append(row(step));
    first.append(evaluation(2));
    for (const step of [3, 4]) first.append(row(step));
    first.close();
    const second = await MetricsFile.open(path, 2);
    expect(second.evaluated).toBe(2);
    second.append(row(3));
    second.close();
    expect(await steps(path)).toEqual([1, 2, 2, 3]);
  });

  it('loses a row that was half written', async () => {
    const path = join(root, 'metrics.jsonl');
    await writeFile(path, `${JSON.stringify(row(1))}\n{"step":2,"lo`);
    const file = await MetricsFile.open(path, 5);
    file.append(row(2));
    file.close();
    expect(await steps(path)).toEqual([1, 2]);
  });

  it('loses a row whose newline was not written', async () => {
    const path = join(root, 'metrics.jsonl');
    await writeFile(path, `${JSON.stringify(row(1))}\n${JSON.stringify(row(2))}`);
    const file = await MetricsFile.open(path, 5);
    file.append(row(2));
    file.close();
    expect(await readFile(path, 'utf8')).toBe(`${JSON.stringify(row(1))}\n${JSON.stringify(row(2))}\n`);
  });

  it('knows the step that was evaluated best, the latest of equals', async () => {
    const path = join(root, 'metrics.jsonl');
    const first = await MetricsFile.open(path, 0);
    for (const [step, eval_loss] of [
      [1, 3],
      [2, 2],
      [3, 2],
      [4, 2.5],
    ] as const)
      first.append({ ...evaluation(step), eval_loss });
    first.close();
    const file = await MetricsFile.open(path, 4);
    expect(file.best([1, 2, 3, 4])).toBe(3);
    expect(file.best([4, 1])).toBe(4);
    expect(file.best([5])).toBeNull();
    file.close();
  });

  it('begins anew with a run that begins anew', async () => {
    const path = join(root, 'metrics.jsonl');
    await writeFile(path, `${JSON.stringify(row(1))}\n`);
    (await MetricsFile.open(path, 0)).close();
    expect(await steps(path)).toEqual([]);
  });
});
