/** `candlewick runs`: what became of runs, and what differs between them. */
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Lock } from '../src/run/index.js';
import { compareRuns, findRuns, readRun } from '../src/runs/index.js';
import { isBuilt, startIn } from './support/program.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-runs-'));
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const step = (at: number, loss = 3) => ({
  step: at,
  loss,
  grad_norm: 1,
  lr: 0.001,
  tokens: at * 64,
  documents: at,
  epoch: 1,
  tokens_per_second: 1000,
  samples_per_second: 1,
  data_wait: 0,
  stream_hash: '0123456789abcdef',
  time: 1_700_000_000 + at,
});
const evaluation = (at: number) => ({
  step: at,
  eval_loss: 2.5,
  bits_per_byte: 1.1,
  time: 1_700_000_000 + at,
});

/** A run directory as a run leaves it. */
async function made(
  name: string,
  { rows = [] as object[], events = [] as object[], checkpoint = null as number | null, lr = 0.001 } = {},
): Promise<string> {
  const path = join(root, name);
  await mkdir(path, { recursive: true });
  await writeFile(
    join(path, 'config.yaml'),
    `output: ${path}\nmodel: {hidden_size: 64, vocab_size: 300}\ntraining: {max_steps: 8}\noptimizer: {lr: ${lr}}\n`,
  );
  const lines = (list: object[]) => list.map((row) => `${JSON.stringify(row)}\n`).join('');
  await writeFile(join(path, 'metrics.jsonl'), lines(rows));
  if (events.length > 0) await writeFile(join(path, 'events.jsonl'), lines(events));
  if (checkpoint !== null) {
    const directory = join(path, 'checkpoints', `step-${String(checkpoint).padStart(8, '0')}`);
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'model.safetensors'), Buffer.alloc(1000));
  }
  return path;
}

describe('a run is', () => {
  it.each([
    ['new', {}, 'new'],
    [
      'finished',
      { rows: [step(8)], checkpoint: 8, events: [{ type: 'done', reason: 'limit', step: 8 }] },
      'finished',
    ],
    [
      'ended',
      { rows: [step(5)], checkpoint: 5, events: [{ type: 'done', reason: 'ended', step: 5 }] },
      'finished',
    ],
    [
      'stopped',
      { rows: [step(5)], checkpoint: 5, events: [{ type: 'done', reason: 'stopped', step: 5 }] },
      'stopped',
    ],
    [
      'failed',
      { rows: [step(5)], checkpoint: 4, events: [{ type: 'error', code: 'DIVERGED', step: 5 }] },
      'failed',
    ],
    ['crashed', { rows: [step(5)], checkpoint: 4, events: [{ type: 'checkpoint', step: 4 }] }, 'crashed'],
    ['without events, at its limit', { rows: [step(8)], checkpoint: 8 }, 'finished'],
    ['without events, saved', { rows: [step(5)], checkpoint: 5 }, 'stopped'],
  ] as const)('%s', async (name, parts, state) => {
    const run = await readRun(await made(name, parts as Parameters<typeof made>[1]));
    expect(run?.summary.state).toBe(state);
    expect(run?.summary.error).toBe(state === 'failed' ? 'DIVERGED' : null);
  });

  it('running while a process holds its lock, and no longer', async () => {
    const path = await made('held', { rows: [step(3)], checkpoint: 2 });
    const lock = await Lock.acquire(join(path, 'run.lock'), path);
    expect((await readRun(path))?.summary.state).toBe('running');
    lock.release();
    expect((await readRun(path))?.summary.state).toBe('crashed');
    await writeFile(join(path, 'run.lock'), JSON.stringify({ pid: 2 ** 22 + 1, host: 'elsewhere-long-ago' }));
    await writeFile(join(path, 'run.lock'), 'not even JSON');
    expect((await readRun(path))?.summary.state).toBe('crashed');
  });
});

describe('the list', () => {
  it('has what the last rows say, newest first, whatever lies between', async () => {
    await made('old', { rows: [step(1, 4), evaluation(1), step(2, 3.5)], checkpoint: 2 });
    await made('deep/er/new', { rows: [step(1, 4), step(7, 2.25), evaluation(7)], checkpoint: 6 });
    await mkdir(join(root, 'no-run'));
    await writeFile(join(root, 'no-run', 'config.yaml'), 'some: other thing\n');
    await appendFile(join(root, 'old', 'metrics.jsonl'), '{"step":3,"lo');
    const [first, second, ...more] = (await findRuns(root)).map(({ summary }) => summary);
    expect(more).toEqual([]);
    expect(first).toMatchObject({
      name: 'new',
      step: 7,
      max_steps: 8,
      loss: 2.25,
      eval_loss: 2.5,
      bits_per_byte: 1.1,
      tokens: 448,
      tokens_per_second: 1000,
      checkpoint: 6,
      updated: 1_700_000_007,
    });
    expect(second).toMatchObject({ name: 'old', step: 2, loss: 3.5, eval_loss: 2.5 });
    expect(first?.bytes).toBeGreaterThan(1000);
  });

  it('reads the tail of a long history, not all of it', async () => {
    const path = await made('long', { checkpoint: 300_000 });
    const rows = Array.from({ length: 300_000 }, (_, i) => JSON.stringify(step(i + 1)));
    rows.splice(299_000, 0, JSON.stringify(evaluation(299_000)));
    await writeFile(join(path, 'metrics.jsonl'), `${rows.join('\n')}\n`);
    const began = performance.now();
    const run = await readRun(path);
    const took = performance.now() - began;
    expect(run?.summary).toMatchObject({ step: 300_000, eval_loss: 2.5 });
    // Parsing all 60 MB takes ten times as long.
    expect(took).toBeLessThan(300);
  });
});

it('a comparison names the keys that differ, and nothing else', async () => {
  const runs = await Promise.all(
    [made('a', { rows: [step(8)], lr: 0.001 }), made('b', { rows: [step(8, 2.9)], lr: 0.002 })].map(
      async (path) => readRun(await path),
    ),
  );
  const { differences, runs: summaries } = compareRuns(runs.filter((run) => run !== null));
  expect(differences).toEqual([{ key: 'optimizer.lr', values: [0.001, 0.002] }]);
  expect(summaries.map(({ loss }) => loss)).toEqual([3, 2.9]);
});

describe.skipIf(!isBuilt)('the command', () => {
  const run = async (...argv: string[]) => {
    const program = startIn({ cwd: root }, 'candlewick', 'runs', ...argv);
    return { code: await program.ended, stdout: program.stdout, stderr: program.stderr };
  };

  it('prints a table, a comparison, or one object a line', async () => {
    await made('runs/a', { rows: [step(8)], checkpoint: 8 });
    await made('runs/b', { rows: [step(3, 2.5)], checkpoint: 2, lr: 0.01 });
    const table = await run();
    expect(table.code, table.stderr).toBe(0);
    expect(table.stdout).toMatch(/^run +state +step +loss +eval +tokens +tok\/s +age +size\n/);
    expect(table.stdout).toMatch(/^runs\/a +finished +8\/8 +3\.0000 +– +512 +1\.00k +\d+d\d\dh +\d/m);
    expect(table.stdout).toMatch(/^runs\/b +crashed +3\/8 +2\.5000/m);
    const compared = await run('--compare', 'runs/a', 'runs/b');
    expect(compared.stdout).toMatch(/^ +runs\/a +runs\/b\n/);
    expect(compared.stdout).toMatch(/^state +finished +crashed$/m);
    expect(compared.stdout).toMatch(/^optimizer\.lr +0\.001 +0\.01$/m);
    const lines = (await run('--json')).stdout.trim().split('\n');
    expect(lines.map((line) => (JSON.parse(line) as { type: string }).type)).toEqual(['run', 'run']);
  });

  it('says where there is none, and refuses what is no run', async () => {
    const none = await run();
    expect([none.code, none.stdout]).toEqual([0, '']);
    expect(none.stderr).toBe('no run lies below runs\n');
    await made('runs/a');
    for (const argv of [
      ['--compare', 'runs/a'],
      ['--compare', 'runs/a', 'runs/z'],
    ]) {
      const refused = await run(...argv);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toMatch(/^error\[USAGE\]: .*\nhint: /);
    }
  });
});
