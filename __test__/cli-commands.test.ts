import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalHub } from './support/hub.js';
import { isBuilt, killAll, losses, startIn } from './support/program.js';
import { hasSharedData, sharedData } from './support/python.js';

/** What a model must lose to be trained in a test; everything else of the commands stays. */
const smaller = [
  'model.num_hidden_layers=1',
  'model.hidden_size=32',
  'model.intermediate_size=32',
  'model.num_attention_heads=2',
  'model.num_key_value_heads=1',
  'model.head_dim=16',
  'data.sequence_length=32',
  'training.global_batch_size=2',
  'training.micro_batch_size=1',
  'evaluation.documents=2',
].flatMap((set) => ['--set', set]);
const shorter = ['--max-steps', '2', '--json', ...smaller];
const smallTokenizer = ['tokenizer.train.max_samples=200', 'tokenizer.train.vocab_size=1000'].flatMap(
  (set) => ['--set', set],
);

/** The commands of the README, as they stand, from a directory that has no configs/ of its own. */
describe.skipIf(!isBuilt || !hasSharedData)('the command lines that are promised', () => {
  let cwd: string;
  let hub: LocalHub;
  beforeAll(async () => {
    cwd = await mkdtemp(join(tmpdir(), 'candlewick-commands-'));
    hub = await LocalHub.start({ 'HuggingFaceFW/fineweb': join(sharedData, 'web-text') });
  });
  afterAll(async () => {
    killAll();
    await hub.close();
    await rm(cwd, { recursive: true, force: true });
  });

  const run = async (line: string, ...more: string[]) => {
    const [bin = '', ...argv] = line.split(/\s+/).map((word) => word.replaceAll('"', ''));
    const program = startIn(
      { cwd, env: { HF_ENDPOINT: hub.url, HF_HOME: join(cwd, 'hf') } },
      bin,
      ...argv,
      ...more,
    );
    expect(await program.ended, program.stderr).toBe(0);
    return program;
  };

  it('train a tokenizer', async () => {
    await run(
      'train-tokenizer-streaming --dataset "HuggingFaceFW/fineweb" --max-samples 1000000 --vocab-size 50000 --output artifacts/tokenizer/runpod-1b',
      '--max-samples',
      '200',
      '--vocab-size',
      '1000',
      '--json',
    );
    const files = await readdir(join(cwd, 'artifacts', 'tokenizer', 'runpod-1b'));
    for (const name of ['tokenizer.json', 'vocab.json', 'merges.txt', 'tokenizer_config.json']) {
      expect(files).toContain(name);
    }
  });

  it('train a model with a tokenizer of its own', async () => {
    const program = await run(
      'train-streaming --dataset "HuggingFaceFW/fineweb" --split train --max-samples 100000000 --batch-size 1000 --config configs/runpod_1b.yaml',
      ...shorter,
      ...smallTokenizer,
    );
    expect(await losses(cwd, 'runs/runpod_1b')).toHaveLength(2);
    expect(existsSync(join(cwd, 'runs', 'runpod_1b', 'tokenizer', 'tokenizer.json'))).toBe(true);
    expect(program.stdout).toContain(hub.commit('HuggingFaceFW/fineweb'));
  });

  it('train a model with a tokenizer that is there', async () => {
    await run(
      'train-streaming --dataset "HuggingFaceFW/fineweb" --max-samples 100000000 --tokenizer artifacts/tokenizer/runpod-1b --config configs/runpod_1b.yaml --output runs/runpod-1b',
      ...shorter,
    );
    expect(await losses(cwd, 'runs/runpod-1b')).toHaveLength(2);
  });

  it('go on with another limit', async () => {
    const program = await run(
      'train-streaming --max-samples 10000000 --config configs/runpod_1b.yaml',
      ...shorter,
      ...smallTokenizer,
      '--max-steps',
      '4',
    );
    expect(program.stdout).toContain('"resumed_from":{');
    expect(await losses(cwd, 'runs/runpod_1b')).toHaveLength(4);
  });

  it('write nothing but the run and the hub library’s metadata', async () => {
    expect((await readdir(cwd)).sort()).toEqual(['artifacts', 'hf', 'runs']);
  });

  it('read the same data by its local path', async () => {
    await run(
      `train-streaming --dataset ${join(sharedData, 'web-text')} --config configs/runpod_1b.yaml --output runs/local`,
      ...shorter,
      ...smallTokenizer,
    );
    expect(await losses(cwd, 'runs/local')).toEqual((await losses(cwd, 'runs/runpod_1b')).slice(0, 2));
  });
});
