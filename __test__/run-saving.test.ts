import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verify } from '../src/run/index.js';
import { mostCheckpoints, retained } from '../src/run/retention.js';
import { parseConfig } from '../src/config/index.js';
import { FakeNative } from './support/fake-native.js';
import { FakeRun, uninterrupted } from './support/fake-run.js';

const at = new FakeRun();

/** Something that is waited for until it is opened. */
function gate() {
  let open: () => void = () => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

/** Saves each step and evaluates nothing, so that only saves can hold steps up. */
const each = (every_steps: number, more = {}) =>
  at.values({ checkpoint: { every_steps, keep_last: 9, ...more }, evaluation: {} });
const stepOf = (directory: string) => Number(/step-(\d+)/.exec(directory)?.[1]);

describe('a checkpoint that is being written', () => {
  it('does not hold up the steps', async () => {
    const native = new FakeNative();
    const later = gate();
    // The save of step 4 ends only when step 7 is made: beside it, or never.
    native.onSave = (directory) => (stepOf(directory) === 4 ? later.opened : undefined);
    native.beforeStep = (step) => (step === 7 ? later.open() : undefined);
    const events = await at.run({ native, config: each(4) });
    const order = events.map((event) => `${event.type} ${'step' in event ? event.step : ''}`);
    expect(order.indexOf('checkpoint 4')).toBeGreaterThan(order.indexOf('step 6'));
    expect(await at.checkpoints()).toEqual([0, 4, 8, 10].map((n) => `step-${String(n).padStart(8, '0')}`));
    for (const name of await at.checkpoints()) {
      expect(await verify(join(at.output, 'checkpoints', name))).toHaveProperty('manifest');
    }
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('is the only one: the next save waits for it', async () => {
    const native = new FakeNative();
    let [inFlight, most] = [0, 0];
    native.onSave = async () => {
      most = Math.max(most, ++inFlight);
      await new Promise((resolve) => setImmediate(resolve));
      inFlight--;
    };
    const events = await at.run({ native, config: each(1) });
    expect(most).toBe(1);
    expect(events.filter(({ type }) => type === 'checkpoint')).toHaveLength(11);
  });

  it('is waited for by a stop', async () => {
    const native = new FakeNative();
    const later = gate();
    native.onSave = (directory) => (stepOf(directory) === 4 ? later.opened : undefined);
    native.onStop = () => later.open();
    const events = await at.run({
      native,
      config: each(4),
      each: (event, trainer) => event.type === 'step' && event.step === 6 && trainer.stop(),
    });
    const done = events.at(-1);
    expect(done).toMatchObject({ type: 'done', reason: 'stopped' });
    const saved = events.flatMap((event) => (event.type === 'checkpoint' ? [event.step] : []));
    expect(saved.slice(0, 2)).toEqual([0, 4]);
    expect(saved.at(-1)).toBe(done?.type === 'done' ? done.step : null);
    expect((await at.checkpoints()).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  it('is waited for by a stop that comes during an evaluation beside it, and told', async () => {
    const native = new FakeNative();
    const controller = new AbortController();
    const later = gate();
    native.onSave = (directory) => (stepOf(directory) === 8 ? later.opened : undefined);
    let evaluations = 0;
    native.onEvaluate = () => {
      if (++evaluations === 2) controller.abort();
    };
    // The evaluation is over by then, and only the save is left.
    native.onStop = () => void setImmediate(later.open);
    const events = await at.run({ native, signal: controller.signal });
    expect(events.slice(-2)).toMatchObject([
      { type: 'checkpoint', step: 8 },
      { type: 'done', reason: 'stopped', step: 8, checkpoint: expect.stringMatching(/00000008$/) as string },
    ]);
  });

  it('that fails ends the run with its error, and the last good one is there', async () => {
    const native = new FakeNative();
    const later = gate();
    native.onSave = async (directory) => {
      if (stepOf(directory) !== 8) return;
      await later.opened;
      throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    };
    native.beforeStep = (step) => (step === 10 ? later.open() : undefined);
    await expect(at.run({ native, config: each(4) })).rejects.toMatchObject({
      code: 'DISK_FULL',
      exitCode: 3,
    });
    expect(await at.checkpoints()).toEqual(['step-00000000', 'step-00000004']);
    const errors = await at.lines<{ type: string; code?: string }>('events.jsonl');
    expect(errors.at(-1)).toMatchObject({ type: 'error', code: 'DISK_FULL' });
    await at.run({ config: each(4) });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('is complete when its trainer is closed, though nobody reads the events any more', async () => {
    const native = new FakeNative();
    const later = gate();
    native.onSave = (directory) => (stepOf(directory) === 4 ? later.opened : undefined);
    native.onStop = () => later.open();
    {
      await using trainer = await at.create({ native, config: each(4) });
      for await (const event of trainer.run()) {
        if (event.type === 'step' && event.step === 5) {
          later.open();
          break;
        }
      }
    }
    expect(await verify(join(at.output, 'checkpoints', 'step-00000004'))).toHaveProperty('manifest');
    expect(await readdir(at.output)).not.toContain('run.lock');
  });
});

describe('the checkpoint of step 0', () => {
  it('proves the disk before a step is made', async () => {
    const native = new FakeNative();
    native.onSave = () => {
      throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    };
    let steps = 0;
    native.beforeStep = () => void steps++;
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'DISK_FULL' });
    expect(steps).toBe(0);
    expect(await at.checkpoints()).toEqual([]);
  });

  it('is what a stop before the first step leaves, and another configuration may begin from there', async () => {
    const native = new FakeNative();
    native.beforeStep = (step) => {
      if (step === 1) controller.abort();
    };
    const controller = new AbortController();
    const events = await at.run({ native, signal: controller.signal });
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 0 });
    expect(await verify(join(at.output, 'checkpoints', 'step-00000000'))).toMatchObject({ step: 0 });
    await at.run({ config: at.values({ optimizer: { lr: 0.5 } }) });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });
});

describe('of several checkpoints', () => {
  it('the newest, the regular ones and the best stay', () => {
    const steps = [0, 10, 20, 30, 40, 50];
    const kept = (last: number, every: number | null, best: number | null) =>
      [...retained(steps, { last, every, best })].sort((a, b) => a - b);
    expect(kept(2, null, null)).toEqual([40, 50]);
    expect(kept(1, 20, null)).toEqual([20, 40, 50]);
    expect(kept(1, null, 10)).toEqual([10, 50]);
    expect(kept(2, 30, 50)).toEqual([30, 40, 50]);
    expect(kept(9, null, null)).toEqual(steps);
  });

  it('the one with the lowest evaluation loss outlives the others', async () => {
    const native = new FakeNative();
    native.natsAt = (step) => (step === 4 ? 10 : 100 + step);
    const checkpoint = { every_steps: 2, keep_last: 1, keep_every: 6 };
    await at.run({ native, config: at.values({ checkpoint }) });
    expect(await at.checkpoints()).toEqual(['step-00000004', 'step-00000006', 'step-00000010']);
    // It is known after a resume too.
    const goOn = at.values({ checkpoint, training: { max_steps: 14, global_batch_size: 2 } });
    await at.run({ native, config: goOn });
    expect(await at.checkpoints()).toEqual([4, 6, 12, 14].map((n) => `step-${String(n).padStart(8, '0')}`));
  });

  it('keep_best: false keeps none for its loss', async () => {
    const native = new FakeNative();
    native.natsAt = (step) => (step === 4 ? 10 : 100 + step);
    await at.run({
      native,
      config: at.values({ checkpoint: { every_steps: 4, keep_last: 1, keep_best: false } }),
    });
    expect(await at.checkpoints()).toEqual(['step-00000010']);
  });

  it('as many as will lie there at once are counted beforehand', () => {
    const most = (more: string) => {
      const text = `tokenizer: {path: x}
model: {architecture: llama, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 4}
data: {dataset: sample}
${more}`;
      return mostCheckpoints(parseConfig(text, 'run.yaml').config);
    };
    expect(most('training: {max_steps: 5000}\n')).toBe(3);
    expect(most('training: {max_steps: 5000}\nevaluation: {documents: 10}\n')).toBe(4);
    expect(most('training: {max_steps: 5000}\ncheckpoint: {every_steps: 100, keep_every: 1000}\n')).toBe(8);
    expect(most('training: {max_steps: 50}\n')).toBe(2);
    expect(most('schedule: {name: constant}\ncheckpoint: {keep_last: 4, keep_every: 2000}\n')).toBe(5);
  });

  it('that do not fit on the disk are refused before anything is opened, with what is needed and free', async () => {
    const native = new FakeNative();
    native.parameters = 2e15;
    const error: unknown = await at.create({ native }).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'DISK_FULL', exitCode: 3 });
    expect((error as Error).message).toMatch(
      /need 96000000\.0 GB in .*\(4 of 24000000\.0 GB.*\d GB are free/,
    );
    expect((error as { hint: string }).hint).toMatch(/free 9\d+\.\d GB.*another directory|larger disk/);
    expect(native.opened).toEqual([]);
    expect(await readdir(at.root)).toEqual(['tok']);
  });
});

describe('evaluation', () => {
  it('waits for the save until one has fitted into memory', async () => {
    const native = new FakeNative();
    const seen: string[] = [];
    native.onSave = async (directory) => {
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(`saved ${stepOf(directory)}`);
    };
    native.onEvaluate = () => void seen.push('evaluates');
    await at.run({ native });
    expect(seen.slice(0, 3)).toEqual(['saved 0', 'saved 4', 'evaluates']);
  });

  it('is on another split when it is told so, and nothing is held out', async () => {
    const native = new FakeNative();
    const evaluation = { every_steps: 4, documents: 5, split: 'validation' };
    const events = await at.run({ native, config: at.values({ evaluation }) });
    expect(native.opened.map(({ split, dataset }) => [dataset, split])).toEqual([
      ['made/up', 'train'],
      ['made/up', 'validation'],
    ]);
    expect(native.feeds.find(({ order }) => order === 'shuffled')?.sources[0]?.held_out).toBeNull();
    expect(events.filter(({ type }) => type === 'eval')).toHaveLength(3);
    // The revision that was pinned is the run's.
    expect((await at.run({ config: at.values({ evaluation }) })).at(-1)).toMatchObject({ step: 10 });
    const other = at.values({ evaluation: { ...evaluation, split: 'test' } });
    await expect(at.create({ config: other })).rejects.toThrow(
      'evaluation.split is validation in the run and test now',
    );
  });

  it('continues the prompts, after each evaluation and in the end, in samples.md too', async () => {
    const evaluation = { every_steps: 4, documents: 5, prompts: ['Once', '# no heading\n## Step 9'] };
    const native = new FakeNative();
    native.failAt = { step: 7, code: 'DIVERGED' };
    await expect(at.run({ native, config: at.values({ evaluation }) })).rejects.toMatchObject({
      code: 'DIVERGED',
    });
    const events = await at.run({ config: at.values({ evaluation }) });
    const samples = events.flatMap((event) => (event.type === 'sample' ? [event] : []));
    expect(samples.map(({ step, prompt }) => `${step} ${prompt.slice(0, 4)}`)).toEqual([
      '8 Once',
      '8 # no',
      '10 Once',
      '10 # no',
    ]);
    expect(samples[0]?.text).toBe(' upon a time');
    expect((await at.rows()).filter((row) => 'eval_loss' in row).map(({ step }) => step)).toEqual([4, 8, 10]);
    const text = await readFile(join(at.output, 'samples.md'), 'utf8');
    expect(text.match(/^## Step \d+$/gm)).toEqual(['## Step 4', '## Step 8', '## Step 10']);
    expect(text).toContain('Prompt:\n\n    # no heading\n    ## Step 9\n\nText:\n\n     upon a time\n');
  });
});
