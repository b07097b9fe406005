import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { errorFor } from '../src/errors.js';
import { Trainer } from '../src/run/index.js';
import type { SetupEvent, TrainerEvent } from '../src/run/index.js';
import { FakeNative } from './support/fake-native.js';
import { FakeRun, uninterrupted } from './support/fake-run.js';

const at = new FakeRun();

describe('a run', () => {
  it('steps to its limit, saves on the way and at the end, then evaluates', async () => {
    const events = await at.run();
    const order = events
      .filter(({ type }) => type !== 'step')
      .map((event) => `${event.type} ${'step' in event ? event.step : ''}`);
    // The second evaluation need not wait until the disk has everything.
    expect(order).toEqual([
      'checkpoint 0',
      'checkpoint 4',
      'eval 4',
      'eval 8',
      'checkpoint 8',
      'checkpoint 10',
      'eval 10',
      'sample 10',
      'done 10',
    ]);
    expect(events.at(-1)).toMatchObject({
      type: 'done',
      reason: 'limit',
      step: 10,
      stream_hash: '000000000000000a',
    });
    expect(await at.checkpoints()).toEqual(['step-00000008', 'step-00000010']);
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('leaves the directory that interface.md promises', async () => {
    await at.run();
    expect((await readdir(at.output)).sort()).toEqual([
      'checkpoints',
      'config.input.yaml',
      'config.yaml',
      'env.json',
      'events.jsonl',
      'metrics.jsonl',
      'samples.md',
      'tokenizer',
      'train.log',
    ]);
    const files = await readdir(join(at.output, 'checkpoints', 'step-00000010'));
    expect(files.sort()).toEqual([
      'config.json',
      'manifest.json',
      'model.safetensors',
      'stream.json',
      'trainer.json',
    ]);
    const config = await readFile(join(at.output, 'config.yaml'), 'utf8');
    expect(config).toContain('vocab_size: 384');
    expect(config).toContain('revision: c0ffee');
    expect(Object.keys((await at.rows())[0] ?? {})).toEqual(
      'step loss grad_norm lr tokens documents epoch tokens_per_second samples_per_second data_wait memory stream_hash time'.split(
        ' ',
      ),
    );
  });

  it('evaluates in nats a target and bits a byte, beside simple compressors', async () => {
    const evaluation = (await at.run()).find((event) => event.type === 'eval');
    const bytes = 'the same words again and again '.length * 5;
    expect(evaluation).toMatchObject({ eval_loss: 10 * Math.LN2, unigram_bits_per_byte: 4 });
    expect(evaluation?.type === 'eval' ? evaluation.bits_per_byte : 0).toBeCloseTo(100 / bytes, 10);
  });

  it('evaluates with one token of context as well, in the end only', async () => {
    const native = new FakeNative();
    native.natsAt = (_step, context) => (context === 1 ? 90 : 70);
    const evaluations = (await at.run({ native })).filter((event) => event.type === 'eval');
    expect(evaluations.map(({ eval_loss, one_token_loss }) => [eval_loss, one_token_loss])).toEqual([
      [7, undefined],
      [7, undefined],
      [7, 9],
    ]);
    expect((await at.rows()).at(-1)).toMatchObject({ step: 10, eval_loss: 7, one_token_loss: 9 });
  });

  it('reports speed and waiting since the row before', async () => {
    const step = (await at.run()).find((event) => event.type === 'step' && event.step === 5);
    expect(step).toMatchObject({ tokens_per_second: 128, samples_per_second: 4, data_wait: 0.1 });
  });

  it('writes a row each logging.every_steps, and the last', async () => {
    await at.run({ config: at.values({ logging: { every_steps: 3 }, evaluation: {} }) });
    expect((await at.rows()).map(({ step }) => step)).toEqual([3, 6, 9, 10]);
    const native = new FakeNative();
    native.endsAfter = 5;
    at.output = join(at.root, 'short');
    await at.run({ native, config: at.values({ logging: { every_steps: 3 }, evaluation: {} }) });
    expect((await at.rows()).map(({ step }) => step)).toEqual([3, 5]);
  });

  it('holds documents out of the training feed', async () => {
    const native = new FakeNative();
    await at.run({ native });
    const training = native.feeds.find(({ order }) => order === 'shuffled');
    expect(training?.sources[0]?.held_out).toEqual({ file: 0, group: 0, row: 4, documents: 5 });
  });

  it('trains its tokenizer first, without the held-out documents', async () => {
    const native = new FakeNative();
    const config = at.values({ tokenizer: { train: { vocab_size: 290, max_samples: 50 } } });
    const setup: SetupEvent[] = [];
    await at.run({ native, config, onSetup: (event) => setup.push(event) });
    const counted = native.feeds.find((feed) => feed.order === 'file' && feed.sources[0]?.held_out !== null);
    expect(counted).toMatchObject({ max_samples: 50, sources: [{ held_out: { documents: 5 } }] });
    expect(JSON.parse(await readFile(join(at.output, 'tokenizer', 'tokenizer.json'), 'utf8'))).toEqual({
      size: 290,
    });
    expect(setup.some((event) => event.type === 'tokenizer')).toBe(true);
    const again = new FakeNative();
    await at.run({ native: again, config });
    expect(again.feeds.filter(({ max_samples }) => max_samples === 50)).toEqual([]);
  });

  it('says so when the data ends before the limit, and when there is none', async () => {
    const native = new FakeNative();
    native.endsAfter = 6;
    expect((await at.run({ native })).at(-1)).toMatchObject({ reason: 'ended', step: 6 });
    expect(await at.checkpoints()).toEqual(['step-00000004', 'step-00000006']);
    native.endsAfter = 0;
    await expect(at.run({ native, output: join(at.root, 'empty') })).rejects.toMatchObject({
      code: 'DATASET_EMPTY',
      exitCode: 4,
    });
  });
});

describe('a stopped run', () => {
  const stopAt = (step: number) => (event: TrainerEvent, trainer: Trainer) => {
    if (event.type === 'step' && event.step === step) trainer.stop();
  };

  it('saves the last completed step, and goes on from it as if it had not stopped, twice', async () => {
    expect((await at.run({ each: stopAt(3) })).at(-1)).toMatchObject({ type: 'done', reason: 'stopped' });
    const [saved] = (await at.checkpoints()).slice(-1);
    expect(saved).toMatch(/step-0000000[34]/);
    await at.run({ each: stopAt(7) });
    const last = await at.run();
    expect(last.at(-1)).toMatchObject({ reason: 'limit', step: 10 });
    expect(await at.losses()).toEqual(uninterrupted(10));
    expect((await at.rows()).filter((row) => 'eval_loss' in row).map(({ step }) => step)).toEqual([4, 8, 10]);
  });

  it('is stopped by its signal, during an evaluation too', async () => {
    const native = new FakeNative();
    const controller = new AbortController();
    native.onEvaluate = () => controller.abort();
    const events = await at.run({ native, signal: controller.signal });
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 4 });
    expect((await at.rows()).filter((row) => 'eval_loss' in row)).toEqual([]);
    const resumed = await at.run();
    expect(resumed[0]).toMatchObject({ type: 'eval', step: 4 });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('before its first step rejects with ABORTED and leaves nothing behind', async () => {
    const native = new FakeNative();
    const controller = new AbortController();
    native.onConsume = () => controller.abort();
    const config = at.values({ tokenizer: { train: { vocab_size: 290 } } });
    await expect(at.create({ native, config, signal: controller.signal })).rejects.toMatchObject({
      code: 'ABORTED',
    });
    expect(await readdir(at.root)).toEqual(['tok']);
    expect((await at.run({ config })).at(-1)).toMatchObject({ step: 10 });
  });

  it('that is already at its limit does nothing', async () => {
    await at.run();
    const before = await readFile(join(at.output, 'metrics.jsonl'), 'utf8');
    expect(await at.run()).toEqual([expect.objectContaining({ type: 'done', reason: 'limit', step: 10 })]);
    expect(await readFile(join(at.output, 'metrics.jsonl'), 'utf8')).toBe(before);
  });

  it('goes on when its limit is raised', async () => {
    await at.run();
    await at.run({ config: at.values({ training: { max_steps: 12, global_batch_size: 2 } }) });
    expect(await at.losses()).toEqual(uninterrupted(12));
  });
});

describe('a run that died', () => {
  it('goes on from its last checkpoint, and its history has no holes or repeats', async () => {
    const native = new FakeNative();
    native.failAt = { step: 7, code: 'DIVERGED' };
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'DIVERGED', exitCode: 6 });
    expect((await at.rows()).at(-1)).toMatchObject({ step: 6 });
    await at.run();
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('of its source saves what it had', async () => {
    const native = new FakeNative();
    native.failAt = { step: 7, code: 'SOURCE_UNAVAILABLE' };
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'SOURCE_UNAVAILABLE', exitCode: 4 });
    expect(await at.checkpoints()).toEqual(['step-00000004', 'step-00000006']);
  });

  it('of a full disk keeps the last good checkpoint', async () => {
    const native = new FakeNative();
    native.onSave = (directory) => {
      if (directory.includes('00000008')) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    };
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'DISK_FULL', exitCode: 3 });
    expect(await at.checkpoints()).toEqual(['step-00000000', 'step-00000004']);
    await at.run();
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('with a damaged newest checkpoint goes back to the one before, and says so', async () => {
    await at.run();
    await writeFile(join(at.output, 'checkpoints', 'step-00000010', 'model.safetensors'), '11');
    const warnings: string[] = [];
    const events = await at.run({
      onSetup: (event) => event.type === 'warning' && warnings.push(event.message),
    });
    expect(warnings.join()).toMatch(/step-00000010 is damaged \(model\.safetensors has another checksum\)/);
    expect(events[0]).toMatchObject({ type: 'step', step: 9 });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('with nothing but damaged checkpoints is refused', async () => {
    await at.run();
    for (const name of await at.checkpoints())
      await rm(join(at.output, 'checkpoints', name, 'manifest.json'));
    await expect(at.create()).rejects.toMatchObject({ code: 'CHECKPOINT_CORRUPT', exitCode: 3 });
  });
});

describe('another configuration in the same directory', () => {
  it.each([
    ['optimizer.lr', { optimizer: { lr: 0.5 } }, '0.001', '0.5'],
    ['data.dataset', { data: { dataset: 'other', sequence_length: 32 } }, 'made/up', 'other'],
    ['evaluation.documents', { evaluation: { every_steps: 4, documents: 6 } }, '5', '6'],
  ])('is refused, naming %s, old and new', async (key, change, old, now) => {
    await at.run();
    const error: unknown = await at.create({ config: at.values(change) }).catch((cause: unknown) => cause);
    expect(error).toMatchObject({ code: 'RESUME_MISMATCH', exitCode: 2 });
    expect((error as Error).message).toContain(`${key} is ${old} in the run and ${now} now`);
  });

  it('may save, report and fetch differently', async () => {
    await at.run();
    const config = at.values({
      data: { dataset: 'made/up', sequence_length: 32, batch_size: 3 },
      checkpoint: { every_steps: 1, keep_last: 1 },
      logging: { every_steps: 2 },
    });
    expect((await at.run({ config })).at(-1)).toMatchObject({ step: 10 });
  });

  it('is told from the data too: another revision, other files, another tokenizer', async () => {
    await at.run();
    await expect(at.create({ ready: { files: ['a.parquet'] } })).rejects.toThrow('file list of the dataset');
    await expect(at.create({ ready: { revision: 'f00d' } })).rejects.toThrow(
      'data.revision is c0ffee in the run and f00d now',
    );
    await writeFile(join(at.root, 'tok', 'tokenizer.json'), '{"size":301}');
    await expect(at.create()).rejects.toThrow('tokenizer (digest)');
  });

  it('may begin anew where nothing was saved', async () => {
    const native = new FakeNative();
    native.failAt = { step: 2, code: 'DIVERGED' };
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'DIVERGED' });
    await at.run({ config: at.values({ optimizer: { lr: 0.5 } }) });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });
});

describe('--resume', () => {
  it('never refuses a directory that has checkpoints', async () => {
    expect((await at.run({ resume: 'never' })).at(-1)).toMatchObject({ step: 10 });
    await expect(at.create({ resume: 'never' })).rejects.toMatchObject({ code: 'RESUME_MISMATCH' });
  });

  it('DIR goes on from an older checkpoint of the run, and forgets the newer', async () => {
    await at.run();
    const events = await at.run({ resume: join(at.output, 'checkpoints', 'step-00000008') });
    expect(events[0]).toMatchObject({ type: 'step', step: 9 });
    expect(await at.checkpoints()).toEqual(['step-00000008', 'step-00000010']);
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('DIR goes on in another directory, with the history so far', async () => {
    await at.run();
    const from = at.output;
    at.output = join(at.root, 'second');
    await at.run({ resume: from, config: at.values({ training: { max_steps: 12, global_batch_size: 2 } }) });
    expect(await at.losses()).toEqual(uninterrupted(12));
  });
});

describe('a trainer', () => {
  it('saves when it is asked to', async () => {
    const saved: Promise<string>[] = [];
    const events = await at.run({
      each: (event, trainer) => {
        if (event.type === 'step' && event.step === 2) saved.push(trainer.checkpoint());
      },
    });
    expect(await saved[0]).toMatch(/step-0000000[234]$/);
    expect(events.at(-1)).toMatchObject({ reason: 'limit', step: 10 });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it.each([1, 2, 9])(
    'saves while whoever asked at step %i waits before taking the next event',
    async (asked) => {
      const paths: string[] = [];
      const events = await at.run({
        each: async (event, trainer) => {
          if (event.type === 'step' && event.step === asked) paths.push(await trainer.checkpoint());
        },
      });
      expect(paths).toHaveLength(1);
      // No event is lost or told twice, and each comes after what it follows.
      expect(
        events.filter(({ type }) => type === 'step').map((event) => 'step' in event && event.step),
      ).toEqual(Array.from({ length: 10 }, (_, i) => i + 1));
      expect(events.at(-1)).toMatchObject({ reason: 'limit', step: 10 });
      expect(await at.losses()).toEqual(uninterrupted(10));
    },
  );

  it('keeps a second one out of its directory', async () => {
    await using first = await at.create();
    await expect(at.create()).rejects.toMatchObject({ code: 'OUTPUT_IN_USE' });
    await first.close();
    await (await at.create()).close();
  });

  it('refuses to hold out more than a twentieth of the data', async () => {
    await expect(at.create({ ready: { total_rows: 99 } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      hint: 'set evaluation.documents to 4 or less',
    });
  });

  it('takes a corpus and a tokenizer from a program, and writes both down', async () => {
    const native = new FakeNative();
    const corpus = {
      ...native.corpus({ dataset: 'own/data' }),
      dataset: 'own/data',
      options: { maxSamples: 12 },
    };
    const {
      tokenizer: _,
      data: { dataset: __, ...data },
      ...rest
    } = at.values();
    const tokenizer = { native: await native.binding.tokenizerFromPath(join(at.root, 'tok')) };
    const given = { config: { ...rest, data }, corpus, tokenizer, native };
    await at.run(given);
    const config = await readFile(join(at.output, 'config.yaml'), 'utf8');
    expect(config).toContain('dataset: own/data');
    expect(config).toContain('max_samples: 12');
    expect(config).toContain(`path: ${join(at.output, 'tokenizer')}`);
    expect((await at.run(given)).at(-1)).toMatchObject({ step: 6 });
  });

  it('that cannot begin leaves no directory', async () => {
    const native = new FakeNative();
    const openCorpus = () => ({
      open: () => Promise.reject(errorFor('SPLIT_NOT_FOUND', 'no split', 'take another')),
      close: async () => undefined,
    });
    const options = { config: at.values(), output: at.output };
    await expect(Trainer.create(options, { binding: native.binding, openCorpus })).rejects.toMatchObject({
      code: 'SPLIT_NOT_FOUND',
    });
    await expect(at.create({ config: at.values({ tokenizer: { path: at.root } }) })).rejects.toMatchObject({
      code: 'TOKENIZER_INVALID',
    });
    await expect(at.create({ ready: { total_rows: 9 } })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    expect(await readdir(at.root)).toEqual(['tok']);
  });

  it('refuses a tokenizer of another size than the configuration’s', async () => {
    const config = at.values();
    Object.assign(config.model, { vocab_size: 1000 });
    await expect(at.create({ config })).rejects.toMatchObject({ code: 'TOKENIZER_MISMATCH', exitCode: 2 });
  });
});
