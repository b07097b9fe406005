/**
 * Corpora and trainers that were closed leave nothing behind: no memory, descriptors, threads, or child processes. With
 * `CANDLEWICK_LEAKS=full` there are 200 corpora and 50 trainers, without it a tenth of that.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isBuilt } from './support/program.js';
import { python, repository } from './support/python.js';
import { TinyRuns } from './support/tiny-run.js';

interface Held {
  descriptors: number;
  threads: number;
  children: number;
  megabytes: number;
  resources: string[];
}

const full = process.env['CANDLEWICK_LEAKS'] === 'full';
const ROUNDS = full ? 10 : 4;
/** A round of each, after which it is counted what the process holds. */
const CORPORA = full ? 20 : 4;
const TRAINERS = full ? 5 : 2;

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.make();
  const lines = Array.from({ length: 200 }, (_, i) => `${JSON.stringify({ text: `document ${i}` })}\n`);
  await writeFile(join(runs.root, 'texts.jsonl'), lines.join(''));
});
afterAll(() => runs.close());

async function open(options: { corpora: number; trainers: number }): Promise<Held[]> {
  const argument = JSON.stringify({
    ...options,
    rounds: ROUNDS,
    dataset: join(runs.root, 'texts.jsonl'),
    documents: join(runs.root, 'documents.jsonl'),
    config: runs.config(4),
    folder: runs.root,
  });
  const child = spawn(
    process.execPath,
    // V8's young generation grows by up to 16 MB on its own, a semi-space at a time, and is not what is looked for.
    ['--expose-gc', '--max-semi-space-size=1', join(repository, '__test__/support/leaks.mjs'), argument],
    { env: { ...process.env, CANDLEWICK_PYTHON: python }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  expect(code, stderr).toBe(0);
  const lines = stdout.trim().split('\n');
  expect(lines).toHaveLength(ROUNDS);
  return lines.map((line) => JSON.parse(line) as Held);
}

/** What the first round leaves is loaded once: code, pools, caches. Every later one has to leave no more. */
function expectNothingLeft(rounds: Held[], megabytesEach: number, each: number): void {
  const said = JSON.stringify(rounds);
  const [first, ...later] = rounds as [Held, ...Held[]];
  const last = later.at(-1) as Held;
  for (const { descriptors, threads, children, resources } of later) {
    expect({ descriptors, threads, children, resources }, said).toEqual({
      descriptors: first.descriptors,
      threads: first.threads,
      children: 0,
      resources: [],
    });
  }
  expect(last.megabytes - first.megabytes, said).toBeLessThan(megabytesEach * each * later.length + 8);
}

describe.skipIf(!isBuilt || process.platform !== 'linux')('opened and closed', () => {
  it(`${ROUNDS * CORPORA} corpora leave nothing`, async () => {
    expectNothingLeft(await open({ corpora: CORPORA, trainers: 0 }), 0, CORPORA);
  }, 1_200_000);

  it(`${ROUNDS * TRAINERS} trainers leave nothing`, async () => {
    expectNothingLeft(await open({ corpora: 0, trainers: TRAINERS }), 0, TRAINERS);
  }, 600_000);
});
