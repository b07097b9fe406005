/** What an estimate is made of: counts, speeds, edits, and what the command says. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configFromValues, parseConfig } from '../src/config/index.js';
import type { ResolvedConfig } from '../src/config/index.js';
import {
  assumedGpuSpeed,
  editsInWords,
  editsThatFit,
  estimate,
  fitToMemory,
  gpuPeak,
  mfuOf,
  openIn,
  requireMemory,
} from '../src/estimate/index.js';
import { memoryOf } from '../src/estimate/index.js';
import { native } from '../src/native/index.js';
import { isBuilt, startIn } from './support/program.js';

const values = {
  tokenizer: { train: { vocab_size: 1000 } },
  model: {
    architecture: 'qwen3',
    hidden_size: 64,
    intermediate_size: 160,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    tie_word_embeddings: true,
  },
  data: { dataset: 'sample', sequence_length: 128 },
  training: { global_batch_size: 8, max_steps: 100, threads: 2 },
};
const loaded = (more: Record<string, unknown> = {}) => configFromValues({ ...values, ...more });

describe.skipIf(!isBuilt)('an estimate', () => {
  it('counts parameters, FLOPs, tokens, time and money', async () => {
    const found = await estimate(native(), loaded(), {
      speed: () => ({ tokensPerSecond: 1024, source: 'given', basis: 'test' }),
      pricePerHour: 36,
      memoryAvailable: 8e9,
    });
    const [c, i, q, kv, layers, vocabulary] = [64, 160, 64, 32, 3, 1024];
    const block = 2 * c * q + 2 * c * kv + 3 * c * i;
    expect(found.parameters).toEqual({
      embedding: vocabulary * c,
      blocks: layers * (block + 2 * c + 2 * 16) + c,
      head: 0,
      total: vocabulary * c + layers * (block + 2 * c + 2 * 16) + c,
    });
    expect(found.flops_per_token).toEqual({
      products: 6 * (layers * block + vocabulary * c),
      attention: 6 * layers * 128 * q,
      total: 6 * (layers * block + vocabulary * c) + 6 * layers * 128 * q,
    });
    expect(found).toMatchObject({
      tokens_per_step: 1024,
      tokens: 102_400,
      steps: 100,
      seconds: 100,
      cost: 1,
      problems: [],
      edits: [],
    });
    const { memory } = found;
    expect(memory.weights).toBe(4 * found.parameters.total);
    expect(memory.moments).toBe(8 * found.parameters.total);
    expect(memory.snapshot).toBe(12 * found.parameters.total);
    expect(memory.peak).toBe(memory.required + memory.snapshot);
  });

  it('has no end without a limit, and counts documents as well as it can', async () => {
    const training = { ...values.training, max_steps: null };
    const schedule = { name: 'constant' };
    expect(await estimate(native(), loaded({ training, schedule }))).toMatchObject({
      tokens: null,
      steps: null,
      seconds: null,
      cost: null,
    });
    const data = { ...values.data, max_samples: 1000 };
    const found = await estimate(native(), loaded({ training, schedule, data }));
    expect(found.tokens).toBe(952_000);
    expect(found.assumptions.join()).toContain('952 tokens a document');
  });

  it('takes memory for what there is: no room for a copy, another process', async () => {
    const { config } = loaded();
    const wide = memoryOf(native(), config, { memoryAvailable: 64e9 });
    const tight = memoryOf(native(), config, { memoryAvailable: wide.required + wide.snapshot });
    expect(tight).toMatchObject({ snapshot: 0, peak: wide.required, required: wide.required });
  });

  it('that does not fit comes with two edits that make it fit', async () => {
    const large = loaded({
      training: { ...values.training, global_batch_size: 128, recompute: 'none' },
      data: { ...values.data, sequence_length: 1024 },
    });
    const { required } = memoryOf(native(), large.config);
    const found = await estimate(native(), large, { memoryAvailable: required / 3 });
    expect(found.problems).toEqual(['memory']);
    const [first, second] = found.edits;
    expect(first).toMatchObject({ key: 'training.micro_batch_size', from: 128, enough: true });
    expect(second).toMatchObject({ enough: true });
    for (const edit of found.edits) {
      const changed = structuredClone(large.config) as ResolvedConfig &
        Record<string, Record<string, number>>;
      const [group = '', key = ''] = edit.key.split('.');
      (changed[group] as Record<string, number>)[key] = edit.to;
      const after = memoryOf(native(), changed).required;
      expect(after).toBeLessThanOrEqual(required / 3);
      expect(edit.saves).toBe(required - after);
    }
    expect(editsInWords(found.edits)[1]).toMatch(/^or set /);
  });

  it('where the micro-batch alone is not enough, takes a second edit beside it', () => {
    const { config } = loaded({
      model: { ...values.model, hidden_size: 512, num_hidden_layers: 12, num_attention_heads: 8 },
      training: { ...values.training, global_batch_size: 4 },
      data: { ...values.data, shuffle_buffer_size: 1000 },
    });
    const measure = (changed: ResolvedConfig) => memoryOf(native(), changed);
    const smallest = structuredClone(config);
    smallest.training.micro_batch_size = 1;
    const budget = measure(smallest).required * 0.8;
    const edits = editsThatFit(config, budget, measure);
    expect(edits.map(({ key, enough }) => [key, enough])).toEqual([
      ['training.micro_batch_size', false],
      ['model.num_hidden_layers', false],
    ]);
    const both = structuredClone(smallest);
    both.model.num_hidden_layers = edits[1]?.to ?? 0;
    expect(measure(both).required).toBeLessThanOrEqual(budget);
    expect(editsInWords(edits)[1]).toMatch(/^and set model\.num_hidden_layers: \d+ \(now 12; saves/);
  });

  it('before a run, what does not fit is an error with the categories; what nearly fits is tried', () => {
    const { config } = loaded();
    const { required } = memoryOf(native(), config);
    expect(() => requireMemory(native(), config, { memoryAvailable: required * 0.97 })).not.toThrow();
    expect(() => requireMemory(native(), config, { memoryAvailable: required / 2 })).toThrow(
      expect.objectContaining({
        code: 'OUT_OF_MEMORY_HOST',
        exitCode: 5,
        message: expect.stringMatching(
          /needs .* are free: weights .*, activations of a micro-batch .*, Node/,
        ) as string,
        hint: expect.stringMatching(/set training\.micro_batch_size: \d .* saves/) as string,
      }) as Error,
    );
  });

  it('refuses sizes that no machine has, by their key', async () => {
    const training = { ...values.training, global_batch_size: 2 ** 40 };
    await expect(estimate(native(), loaded({ training }))).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      hint: expect.stringContaining('training.global_batch_size') as string,
    });
  });
});

it('an assumed speed names the peak and the share', () => {
  expect(assumedGpuSpeed('h100', 6.5e9)).toEqual({
    tokensPerSecond: (0.4 * 989e12) / 6.5e9,
    source: 'assumed',
    basis: '40 % MFU of a peak of 989 TFLOP/s (h100, dense bf16)',
  });
  expect(assumedGpuSpeed('h101', 1)).toBeNull();
});

describe.skipIf(!isBuilt)('the command', () => {
  let root: string;
  let config: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-estimate-'));
    config = join(root, 'small.yaml');
    await writeFile(config, JSON.stringify(values));
  });
  afterAll(async () => {
    await rm(root, { recursive: true, force: true });
  });
  const run = async (...argv: string[]) => {
    const program = startIn({ cwd: root }, 'candlewick', 'estimate', config, ...argv);
    return { code: await program.ended, stdout: program.stdout, stderr: program.stderr };
  };

  it('prints a table, and one object with --json', async () => {
    const said = await run('--tokens-per-second', '2048', '--price-per-hour', '3.6');
    expect(said.code, said.stderr).toBe(0);
    expect(said.stdout).toMatch(/^parameters {2}195,104: embedding 65,536, blocks 129,568, head tied$/m);
    expect(said.stdout).toMatch(/^ {2}activations of a micro-batch +[\d.]+ MB$/m);
    expect(said.stdout).toMatch(/^speed +2\.05k tok\/s, given: --tokens-per-second$/m);
    expect(said.stdout).toMatch(/^time +50 s, 0\.05 at the price given$/m);
    expect(said.stdout).toMatch(/^fits: /m);
    const json = JSON.parse((await run('--json')).stdout) as Record<string, unknown>;
    expect(json).toMatchObject({ type: 'estimate', steps: 100, speed: { source: 'assumed' } });
  });

  it('--measure runs three steps here', async () => {
    const said = await run('--measure', '--json', '--set', 'data.sequence_length=32');
    expect(said.code, said.stderr).toBe(0);
    expect(said.stderr.match(/^step \d of 3: [\d.]+ s$/gm)).toHaveLength(3);
    const { speed } = JSON.parse(said.stdout) as { speed: { source: string; tokensPerSecond: number } };
    expect(speed.source).toBe('measured');
    expect(speed.tokensPerSecond).toBeGreaterThan(0);
  });

  it('ends with 5 where memory and with 3 where the disk is too small', async () => {
    const memory = await run('--set', 'training.global_batch_size=4194304');
    expect(memory.code).toBe(5);
    expect(memory.stdout).toMatch(
      /^does not fit: .* of memory are needed, .* are free\n {2}set training\.micro_batch_size: \d+/m,
    );
    const disk = await run(
      '--set',
      'checkpoint.keep_last=1000000000',
      '--set',
      'checkpoint.every_steps=1',
      '--max-steps',
      '2000000000',
    );
    expect(disk.code).toBe(3);
    expect(disk.stdout).toMatch(/^does not fit: .* of disk are needed/m);
    // For a machine that is elsewhere, none of that is asked.
    const elsewhere = await run(
      '--assume',
      'h100',
      '--mfu',
      '0.5',
      '--set',
      'training.global_batch_size=4194304',
    );
    expect(elsewhere.code, elsewhere.stderr).toBe(0);
    expect(elsewhere.stdout).toContain('50 % MFU of a peak of 989 TFLOP/s');
  });

  it.each([
    [['--measure', '--assume', 'h100'], /each say how fast/],
    [['--assume', 'gtx'], /nothing is known of gtx/],
    [['--mfu', '0.5'], /without --assume/],
    [['--assume', 'h100', '--mfu', '40'], /--mfu is 40/],
    [['--tokens-per-second', '0'], /--tokens-per-second is 0/],
    [['--price-per-hour', '-1'], /--price-per-hour is -1|argument missing/],
  ])('%j is refused', async (argv, message) => {
    const { code, stderr } = await run(...argv);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^error\[USAGE\]/);
    expect(stderr).toMatch(message);
  });
});

describe.skipIf(!isBuilt)('what is left to the memory', () => {
  const open = (more: Record<string, unknown> = {}) =>
    loaded({ training: { ...values.training, global_batch_size: 12, micro_batch_size: 'auto', ...more } });
  const required = (micro_batch_size: number, recompute: string) =>
    memoryOf(
      native(),
      loaded({ training: { ...values.training, global_batch_size: 12, micro_batch_size, recompute } }).config,
    ).required;
  const fitted = (given: ReturnType<typeof loaded>, memoryAvailable: number) => {
    const decisions = fitToMemory(native(), given.config, openIn(given), { memoryAvailable });
    const { micro_batch_size, recompute } = given.config.training;
    return { micro_batch_size, recompute, decisions };
  };

  it('is as large a micro-batch as fits, and nothing is recomputed where that fits', () => {
    const roomy = fitted(open(), 64e9);
    expect(roomy).toMatchObject({ micro_batch_size: 12, recompute: 'none' });
    expect(roomy.decisions.map(({ key }) => key)).toEqual([
      'training.micro_batch_size',
      'training.recompute',
    ]);
    expect(fitted(open(), required(12, 'none') - 1)).toMatchObject({
      micro_batch_size: 12,
      recompute: 'norms_and_swiglu',
    });
    expect(fitted(open(), required(6, 'none'))).toMatchObject({ micro_batch_size: 6, recompute: 'none' });
    expect(fitted(open(), 1)).toMatchObject({ micro_batch_size: 1, recompute: 'norms_and_swiglu' });
  });

  it('is not asked where the configuration says', () => {
    const given = open({ micro_batch_size: 4, recompute: 'none' });
    expect(fitted(given, 1)).toEqual({ micro_batch_size: 4, recompute: 'none', decisions: [] });
    expect(fitted(open({ recompute: 'none' }), required(12, 'none') - 1)).toMatchObject({
      micro_batch_size: 6,
      recompute: 'none',
    });
  });

  it('is half as many bytes of moments in bfloat16', () => {
    const wide = memoryOf(native(), loaded().config);
    const narrow = memoryOf(native(), loaded({ optimizer: { moments: 'bfloat16' } }).config);
    expect(narrow.moments).toBe(wide.moments / 2);
  });
});

describe('MFU', () => {
  it('is the FLOPs of a token by the formula, times the speed, over the peak of the GPU by its name', () => {
    const { config } = parseConfig(
      `tokenizer: {path: tok}
model: {architecture: llama, hidden_size: 256, intermediate_size: 512, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2, vocab_size: 1024}
data: {dataset: sample, sequence_length: 128}
training: {max_steps: 1, device: cpu}
`,
      'run.yaml',
    );
    expect(mfuOf(config, 'NVIDIA H100 80GB HBM3')).toBeNull();
    config.training.device = 'cuda';
    // 3 blocks of q and o, k and v, gate, up and down; the head; causal attention.
    const products = 3 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512) + 1024 * 256;
    const flops = 6 * products + 6 * 3 * 128 * 256;
    expect(mfuOf(config, 'NVIDIA H100 80GB HBM3')?.(1e6)).toBeCloseTo((flops * 1e6) / 989e12, 12);
    expect(mfuOf(config, 'NVIDIA A100-SXM4-80GB')?.(1e6)).toBeCloseTo((flops * 1e6) / 312e12, 12);
    expect(mfuOf(config, 'Quadro RTX 6000')?.(1e6)).toBeNull();
  });

  it.each([
    ['NVIDIA H100 80GB HBM3', 989e12],
    ['NVIDIA H100 PCIe', 756e12],
    ['NVIDIA H200', 989e12],
    ['NVIDIA GeForce RTX 4090', 165e12],
    ['NVIDIA GeForce RTX 4090 D', null],
    ['NVIDIA B200', null],
  ])('has the peak of %s', (name, peak) => {
    expect(gpuPeak(name)).toBe(peak);
  });
});
