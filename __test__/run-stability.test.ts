/** What is not finite, and what is unusual: events, columns, and what a resumed run says. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { configFromValues } from '../src/config/index.js';
import type { ResolvedConfig } from '../src/config/index.js';
import { continueConfig, differencesOf } from '../src/run/resume.js';
import { LossWindow, SPIKE_WINDOW } from '../src/run/spikes.js';
import { FakeNative } from './support/fake-native.js';
import { FakeRun } from './support/fake-run.js';

const at = new FakeRun();

describe('a batch whose loss is not finite', () => {
  it('is told, and counted in the row of the next step', async () => {
    const native = new FakeNative();
    native.skipsBefore = (step) => (step === 3 ? 2 : 0);
    const events = await at.run({ native });
    expect(events.filter(({ type }) => type === 'skipped')).toEqual([
      { type: 'skipped', step: 2, loss: null, grad_norm: null, in_a_row: 1, limit: 5 },
      { type: 'skipped', step: 2, loss: null, grad_norm: null, in_a_row: 2, limit: 5 },
    ]);
    const rows = (await at.rows()).filter((row) => 'loss' in row);
    expect(rows.map((row) => row.skipped_steps ?? 0)).toEqual([0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
  });
});

describe('a loss far above those before it', () => {
  const wave = (step: number) => 3 + 0.1 * Math.sin(step) + (step === 30 ? 2 : 0);
  const training = (max_steps: number) => at.values({ training: { max_steps, global_batch_size: 2 } });

  it('is an event, and every row after the first 20 says how unusual its loss is', async () => {
    const native = new FakeNative();
    native.lossAt = wave;
    const events = await at.run({ native, config: training(40) });
    const spikes = events.filter((event) => event.type === 'spike');
    expect(spikes).toEqual([expect.objectContaining({ step: 30, loss: wave(30) })]);
    expect(spikes[0]?.mean).toBeCloseTo(3, 1);
    const rows = (await at.rows()).filter((row) => 'loss' in row);
    expect(rows.map((row) => 'loss_z' in row)).toEqual(rows.map((_, i) => i >= 20));
    expect(rows[29]?.loss_z).toBeGreaterThan(20);
    expect(rows[25]?.loss_z).toBeLessThan(3);
  });

  it('is judged after a resume as without it', async () => {
    const run = async (max_steps: number) => {
      const native = new FakeNative();
      native.lossAt = wave;
      await at.run({ native, config: training(max_steps) });
    };
    const judged = async () =>
      (await at.rows()).filter((row) => 'loss' in row).map(({ step, loss_z }) => [step, loss_z]);
    await run(27);
    await run(40);
    const resumed = await judged();
    at.output = join(at.root, 'straight');
    await run(40);
    expect(resumed).toEqual(await judged());
  });
});

describe('a window of losses', () => {
  it('says nothing where nothing differs, and forgets what is long ago', () => {
    const flat = new LossWindow();
    for (let i = 0; i < 50; i++) expect(flat.next(2)).toBeNull();
    const moved = new LossWindow();
    for (let i = 0; i < SPIKE_WINDOW; i++) moved.add(100);
    for (let i = 0; i < SPIKE_WINDOW; i++) moved.add(i % 2);
    expect(moved.mean).toBe(0.5);
    expect(moved.next(1.5)).toBeCloseTo(2);
  });
});

describe('a run that goes on', () => {
  const resolved = (training: Record<string, unknown> = {}) =>
    configFromValues(at.values({ training: { max_steps: 10, global_batch_size: 8, ...training } }));

  it('from before a key existed ran by its default', () => {
    const old = structuredClone(resolved().config) as unknown as Record<string, Record<string, unknown>>;
    delete old['training']?.['z_loss'];
    delete old['training']?.['recompute'];
    delete old['training']?.['max_skipped_steps'];
    delete old['optimizer']?.['moments'];
    const before = old as unknown as ResolvedConfig;
    expect(differencesOf(before, resolved().config)).toEqual([]);
    expect(differencesOf(before, resolved({ z_loss: 1e-5 }).config)).toEqual([
      { key: 'training.z_loss', old: 0, new: 1e-5 },
    ]);
  });

  it('keeps the micro-batch that was left to the memory then, and may recompute otherwise', () => {
    const before = resolved({ micro_batch_size: 2, recompute: 'none' }).config;
    const now = resolved({ micro_batch_size: 'auto', recompute: 'auto' });
    now.config.training.micro_batch_size = 4;
    now.config.training.recompute = 'norms_and_swiglu';
    const { training } = continueConfig('run', before, now.config, now.given);
    expect(training).toMatchObject({ micro_batch_size: 2, recompute: 'norms_and_swiglu' });
    const other = resolved({ micro_batch_size: 4 });
    expect(() => continueConfig('run', before, other.config, other.given)).toThrow(/micro_batch_size is 2/);
  });
});
