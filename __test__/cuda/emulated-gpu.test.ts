/** Whole runs of the binding with CUDA inside, on a GPU that is emulated by the processor. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { emulatedCuda } from '../support/fake-cuda.js';
import { killAll, startIn } from '../support/program.js';
import { repository } from '../support/python.js';

const withCuda = process.env['CANDLEWICK_NATIVE'] ?? '';

let root: string;
const at = (...parts: string[]) => join(root, ...parts);
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'candlewick-emulated-gpu-'));
  emulatedCuda(at('cuda'));
  // Short texts: the processor takes a second for a hundred tokens.
  const text = (i: number) =>
    JSON.stringify({ text: `${i} candles burn ${i % 7} hours, wick by wick, ${i * i}.` });
  writeFileSync(at('texts.jsonl'), Array.from({ length: 300 }, (_, i) => `${text(i)}\n`).join(''));
  writeFileSync(
    at('tiny.yaml'),
    `tokenizer: {train: {max_samples: 60, vocab_size: 400}}
model: {architecture: qwen3, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1, num_attention_heads: 1, tie_word_embeddings: true}
data: {dataset: ${at('texts.jsonl')}, sequence_length: 32, shuffle_buffer_size: 50}
training: {global_batch_size: 2, micro_batch_size: auto, max_steps: 4, threads: 1}
optimizer: {lr: 3.0e-3}
checkpoint: {every_steps: 2}
evaluation: {every_steps: 4, documents: 2, sample_tokens: 6, prompts: ["The"]}
`,
  );
}, 600_000);
afterAll(() => {
  killAll();
  rmSync(root, { recursive: true, force: true });
});

const onGpu = (env: Record<string, string> = {}) => ({
  CANDLEWICK_NATIVE: withCuda,
  LD_LIBRARY_PATH: at('cuda'),
  CUDA_HOME: at('cuda'),
  ...env,
});

const train = (env: Record<string, string>, output: string, ...argv: string[]) =>
  startIn({ env }, 'train-streaming', '--config', at('tiny.yaml'), '--output', at(output), ...argv);

interface Row {
  step: number;
  loss?: number;
  eval_loss?: number;
}
const rows = (output: string) =>
  readFileSync(at(output, 'metrics.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Row);

it('trains on the GPU as on the CPU, and goes on on the other', { timeout: 600_000 }, async () => {
  const gpu = train(onGpu(), 'gpu', '--max-steps', '2');
  expect(await gpu.ended, gpu.stderr).toBe(0);
  expect(gpu.stderr + gpu.stdout).toMatch(/device\s+cuda \(Emulated GPU.*bf16/);
  expect(readFileSync(at('gpu', 'config.yaml'), 'utf8')).toMatch(/device: cuda/);
  const cpu = train(onGpu(), 'cpu', '--max-steps', '2', '--device', 'cpu');
  expect(await cpu.ended, cpu.stderr).toBe(0);

  // Each goes on where the other kind is, and comes to the same.
  const moved = train(onGpu(), 'gpu', '--max-steps', '4', '--device', 'cpu');
  expect(await moved.ended, moved.stderr).toBe(0);
  expect(moved.stderr + moved.stdout).toMatch(/after step 2/);
  const back = train(onGpu(), 'cpu', '--max-steps', '4', '--device', 'cuda');
  expect(await back.ended, back.stderr).toBe(0);
  const [one, two] = [rows('gpu'), rows('cpu')];
  expect(one.map(({ step }) => step)).toEqual(two.map(({ step }) => step));
  for (const [i, { loss, eval_loss: evaluated }] of one.entries()) {
    const other = two[i];
    if (loss !== undefined) expect(Math.abs(loss / (other?.loss ?? 0) - 1)).toBeLessThan(4e-3);
    if (evaluated !== undefined) expect(Math.abs(evaluated / (other?.eval_loss ?? 0) - 1)).toBeLessThan(4e-3);
  }
  // Texts of the step's own forward pass.
  expect(readFileSync(at('cpu', 'samples.md'), 'utf8')).toMatch(/The/);
});

it('is fitted to what the GPU has free, and refused where nothing fits', { timeout: 300_000 }, async () => {
  const estimate = (bytes: number, ...argv: string[]) =>
    spawnSync(
      process.execPath,
      [join(repository, 'bin/candlewick.js'), 'estimate', at('tiny.yaml'), '--json', ...argv],
      { encoding: 'utf8', env: { ...process.env, ...onGpu({ CANDLEWICK_EMULATED_BYTES: String(bytes) }) } },
    );
  const roomy = JSON.parse(estimate(8e9).stdout) as {
    memory: { device: { required: number; driver: number } };
    gpu_available: number;
  };
  expect(roomy.gpu_available).toBe(8e9);
  const { required } = roomy.memory.device;
  const tight = estimate(required - 1);
  expect(tight.status, tight.stderr).toBe(0);
  expect(tight.stdout).toMatch(/training\.micro_batch_size 1, for this machine/);
  expect(estimate(1e6).status).toBe(5);

  // Another process has most of it, and nvidia-smi knows which.
  mkdirSync(at('bin'), { recursive: true });
  writeFileSync(at('bin/nvidia-smi'), '#!/bin/sh\necho "4711, python3, 7000"\n');
  chmodSync(at('bin/nvidia-smi'), 0o755);
  const env = onGpu({
    CANDLEWICK_EMULATED_TAKEN: '7999000000',
    CANDLEWICK_EMULATED_BYTES: '8000000000',
    PATH: `${at('bin')}:${process.env['PATH'] ?? ''}`,
  });
  const refused = train(env, 'refused', '--set', 'training.micro_batch_size=2');
  expect(await refused.ended).toBe(5);
  expect(refused.stderr).toContain('OUT_OF_MEMORY_DEVICE');
  expect(refused.stderr).toMatch(/needs \S+ MB of the GPU's memory, and 1\.00 MB are free: weights/);
  expect(refused.stderr).toMatch(/others have of it: python3 \(process 4711, 7\.34 GB\)/);
  expect(refused.stderr).toMatch(/set training\.micro_batch_size: 1 \(now 2; saves/);
});

it('says what a run needs where the driver refuses it', { timeout: 300_000 }, async () => {
  // As when another process was faster.
  const failed = train(onGpu({ CANDLEWICK_EMULATED_LARGEST: '1000000' }), 'failed');
  expect(await failed.ended).toBe(5);
  expect(failed.stderr).toContain('OUT_OF_MEMORY_DEVICE');
  expect(failed.stderr).toMatch(/this run needs .* of the GPU's memory, and 8\.59 GB are free: weights/);
});
