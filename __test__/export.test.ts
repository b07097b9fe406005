/** Models that leave, as directories that transformers loads, and models that come back as the beginning of a run. */
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFile, cp, mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exportModel, Model, ProcessStreamingCorpus, Trainer } from '../src/index.js';
import type { StepRow } from '../src/index.js';

/** Sentences of a small grammar, always the same ones: a model learns them in a few steps. */
const PROGRAM = `
const nouns = ['river', 'mill', 'candle', 'letter'], verbs = ['turns', 'waits', 'burns', 'falls'];
const batch = Array.from({ length: 400 }, (_, i) => 'the ' + nouns[i % 4] + ' ' + verbs[(i * 7) % 4] + ' and the ' + nouns[(i * 3) % 4] + ' ' + verbs[i % 4] + '.');
console.log(JSON.stringify({ batch }));
console.log(JSON.stringify({ done: true, total: 400 }));
`;

let root: string;
let run: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-export-'));
  run = join(root, 'first');
  await train({ output: run });
});
afterAll(async () => {
  await rm(root, { recursive: true });
});

const MODEL = {
  architecture: 'qwen3',
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  tie_word_embeddings: false,
};

interface More {
  output: string;
  model?: object;
  tokenizer?: object;
  init_from?: string;
  max_steps?: number;
}

/** Trains to the end; returns the losses of its steps. */
async function train({ output, model = {}, init_from, max_steps = 60, ...more }: More): Promise<number[]> {
  const tokenizer =
    more.tokenizer ?? (init_from === undefined ? { train: { vocab_size: 280, max_samples: 100 } } : {});
  await using corpus = new ProcessStreamingCorpus([process.execPath, '-e', PROGRAM]);
  await using trainer = await Trainer.create({
    config: {
      ...(init_from === undefined ? {} : { init_from }),
      tokenizer,
      model: { ...MODEL, ...model },
      data: { sequence_length: 32, seed: 1 },
      training: { global_batch_size: 8, max_steps, threads: 1 },
      optimizer: { lr: 0.01 },
      schedule: { name: 'constant' },
      checkpoint: { every_steps: null, keep_last: 1 },
      evaluation: { documents: 10, every_steps: null, sample_tokens: 0 },
    },
    corpus,
    output,
  });
  const losses: number[] = [];
  for await (const event of trainer.run()) if (event.type === 'step') losses.push(event.loss);
  return losses;
}

const json = async (...path: string[]) =>
  JSON.parse(await readFile(join(...path), 'utf8')) as Record<string, unknown>;

async function greedy(directory: string, prompt = 'the river'): Promise<string> {
  await using model = await Model.load(directory);
  let text = '';
  for await (const piece of model.generate(prompt, { maxTokens: 24, temperature: 0 })) text += piece;
  return text;
}

const checkpointOf = async (directory: string) => {
  const names = (await readdir(join(directory, 'checkpoints')))
    .filter((name) => /^step-\d+$/.test(name))
    .sort();
  return join(directory, 'checkpoints', names.at(-1) as string);
};

/** A Python that imports torch and transformers, or null: `CANDLEWICK_TEST_PYTHON`, or `python3`. */
function transformersPython(): string | null {
  const python = process.env['CANDLEWICK_TEST_PYTHON'] ?? 'python3';
  return spawnSync(python, ['-c', 'import torch, transformers']).status === 0 ? python : null;
}
const python = transformersPython();

describe('an exported model', () => {
  it('has what transformers loads, without the padding of the vocabulary, and a card with the run’s facts', async () => {
    const to = join(root, 'models', 'plain');
    const result = await exportModel(run, to);
    expect(await readdir(to)).toEqual([
      'README.md',
      'config.json',
      'generation_config.json',
      'merges.txt',
      'model.safetensors',
      'special_tokens_map.json',
      'tokenizer.json',
      'tokenizer.tiktoken',
      'tokenizer_config.json',
      'tokenizer_manifest.json',
      'vocab.json',
    ]);
    expect(result).toMatchObject({
      output: to,
      model: await checkpointOf(run),
      dtype: 'f32',
      vocab_size: 280,
    });
    expect((await json(await checkpointOf(run), 'config.json'))['vocab_size']).toBe(384);
    expect(await json(to, 'config.json')).toMatchObject({
      architectures: ['Qwen3ForCausalLM'],
      torch_dtype: 'float32',
      vocab_size: 280,
      num_key_value_heads: 2,
      tie_word_embeddings: false,
    });
    const { eos_token_id } = await json(to, 'config.json');
    expect(await json(to, 'generation_config.json')).toMatchObject({
      eos_token_id,
      pad_token_id: eos_token_id,
    });
    const card = await readFile(join(to, 'README.md'), 'utf8');
    const rows = (await readFile(join(run, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const last = rows.map((row) => JSON.parse(row) as StepRow).findLast((row) => 'loss' in row);
    for (const fact of [
      'license: unknown',
      '# first',
      'Qwen3ForCausalLM',
      '| tokens | 15,360 |',
      '| steps | 60 of 8 sequences of 32 tokens |',
      `${last?.loss.toFixed(4)} nats a token`,
      `\`${last?.stream_hash}\``,
      'bits per byte',
      'No license has been chosen',
    ])
      expect(card).toContain(fact);
  });

  it('continues a text as the run and its checkpoint do', async () => {
    const to = join(root, 'models', 'same');
    await exportModel(await checkpointOf(run), to);
    const text = await greedy(await checkpointOf(run));
    expect(text.length).toBeGreaterThan(3);
    expect(await greedy(to)).toBe(text);
  });

  it('can be exported again in half the size, and keeps its card', async () => {
    const [whole, half, again] = ['whole', 'half', 'half-again'].map((name) =>
      join(root, 'models', name),
    ) as [string, string, string];
    await exportModel(run, whole);
    await appendFile(join(whole, 'README.md'), '\nWritten by hand.\n');
    for (const [dtype, name] of [
      ['bf16', half],
      ['f16', again],
    ] as const) {
      const { bytes, parameters } = await exportModel(whole, name, { dtype });
      expect(bytes).toBe(2 * parameters);
      const card = await readFile(join(name, 'README.md'), 'utf8');
      expect([card.includes(`exported as ${dtype}.`), card.includes('Written by hand.')]).toEqual([
        true,
        true,
      ]);
      expect((await greedy(name)).length).toBeGreaterThan(3);
    }
    expect((await json(half, 'config.json'))['torch_dtype']).toBe('bfloat16');
  });

  it('is never put where something lies, nor left half written', async () => {
    const to = join(root, 'models', 'taken');
    await mkdir(to, { recursive: true });
    await writeFile(join(to, 'mine'), '');
    await expect(exportModel(run, to)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('not empty') as string,
    });
    await expect(exportModel(run, join(to, 'mine'))).rejects.toMatchObject({ code: 'NOT_WRITABLE' });
    for (const nothing of [join(root, 'nowhere'), root]) {
      await expect(exportModel(nothing, join(root, 'models', 'none'))).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining(nothing) as string,
      });
    }
    // Weights that are cut short: the failure comes after the directory was begun.
    const broken = join(root, 'broken');
    await exportModel(run, broken);
    const weights = await readFile(join(broken, 'model.safetensors'));
    await writeFile(join(broken, 'model.safetensors'), weights.subarray(0, -1));
    await expect(exportModel(broken, join(root, 'models', 'none'))).rejects.toMatchObject({
      code: 'CHECKPOINT_CORRUPT',
    });
    expect((await readdir(join(root, 'models'))).filter((name) => name.includes('none'))).toEqual([]);
  });

  it.skipIf(python === null)(
    'loads in transformers with its tokenizer and continues a text alike (skipped without transformers)',
    async () => {
      const to = join(root, 'models', 'live');
      await exportModel(run, to);
      const script =
        'import json, sys\n' +
        'from transformers import AutoModelForCausalLM, AutoTokenizer\n' +
        'tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n' +
        'model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n' +
        'inputs = tokenizer("the river", return_tensors="pt")\n' +
        'ids = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1]:]\n' +
        'print(json.dumps([tokenizer.decode(ids, skip_special_tokens=True), len(tokenizer), tokenizer.eos_token]))\n';
      const output = execFileSync(python as string, ['-c', script, to], {
        encoding: 'utf8',
        env: { ...process.env, HF_HUB_OFFLINE: '1' },
        stdio: ['ignore', 'pipe', 'ignore'],
      });
      expect(JSON.parse(output.trim().split('\n').at(-1) as string)).toEqual([
        await greedy(to),
        280,
        '<|endoftext|>',
      ]);
    },
  );
});

describe('a run that starts from a model', () => {
  it('begins where the model stood, with its tokenizer, and goes on by itself', async () => {
    const from = join(root, 'start');
    await exportModel(run, from);
    const output = join(root, 'second');
    const learned = await train({ output: join(root, 'reference'), max_steps: 1 });
    const losses = await train({ output, init_from: from, max_steps: 3 });
    expect(losses[0]).toBeLessThan(0.5 * (learned[0] as number));
    expect(await readFile(join(output, 'tokenizer', 'tokenizer.json'), 'utf8')).toBe(
      await readFile(join(from, 'tokenizer.json'), 'utf8'),
    );
    expect(await readFile(join(output, 'config.yaml'), 'utf8')).toContain(`init_from: ${from}`);
    // Its own checkpoint is what it goes on from: the model is not read again.
    await rm(from, { recursive: true });
    const more = await train({ output, init_from: from, max_steps: 5 });
    expect(more.length).toBe(2);
    await expect(train({ output, init_from: run, max_steps: 6 })).rejects.toMatchObject({
      code: 'RESUME_MISMATCH',
      message: expect.stringContaining('init_from') as string,
    });
    await expect(train({ output: join(root, 'none'), init_from: from })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });

  it('takes a run or a checkpoint for a model, exactly', async () => {
    const both = [run, await checkpointOf(run)];
    const losses = await Promise.all(
      both.map(async (init_from, i) => train({ output: join(root, `from-${i}`), init_from, max_steps: 1 })),
    );
    expect(losses[0]).toEqual(losses[1]);
  });

  it('refuses a shape or a vocabulary that does not fit, naming the tensor with both shapes', async () => {
    const refused = (more: object) => train({ output: join(root, 'misfit'), init_from: run, ...more });
    await expect(refused({ model: { intermediate_size: 64 } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/mlp\.gate_proj\.weight has shape \[48, 32\].*\[64, 32\]/) as string,
    });
    await expect(refused({ model: { vocab_size: 512 } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/embed_tokens\.weight has shape \[384, 32\].*\[512, 32\]/) as string,
    });
    await expect(refused({ model: { rope_theta: 5e5 } })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('rope_theta') as string,
    });
    const small = join(root, 'small');
    await exportModel(run, small);
    const large = join(root, 'large');
    await train({ output: large, max_steps: 1, tokenizer: { train: { vocab_size: 290, max_samples: 100 } } });
    await expect(
      train({
        output: join(root, 'misfit'),
        init_from: small,
        tokenizer: { path: join(large, 'tokenizer') },
      }),
    ).rejects.toMatchObject({
      code: 'TOKENIZER_MISMATCH',
      message: expect.stringMatching(/290 tokens.*embed_tokens\.weight.*\[280, 32\]/) as string,
    });
    await cp(small, join(root, 'dumb'), { recursive: true });
    await rm(join(root, 'dumb', 'tokenizer.json'));
    await expect(
      train({ output: join(root, 'misfit'), init_from: join(root, 'dumb') }),
    ).rejects.toMatchObject({
      code: 'TOKENIZER_INVALID',
      hint: expect.stringContaining('--tokenizer') as string,
    });
    // Nothing is left of a run that could not begin.
    expect(await readdir(root)).not.toContain('misfit');
  });
});
