/** The binding with CUDA inside: what its file is, and that it works where no CUDA is. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { faults, inspectBinary } from '../../scripts/cuda/binary.mjs';
import { native, platformTriple } from '../../src/native/index.js';
import { Tokenizer } from '../../src/tokenizer/index.js';
import { killAll, losses, startIn } from '../support/program.js';
import { repository } from '../support/python.js';

const withCuda = process.env['CANDLEWICK_NATIVE'] ?? '';
const without = join(repository, 'dist/native', `candlewick.${platformTriple()}.node`);

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'candlewick-with-cuda-'));
  writeFileSync(
    join(root, 'tiny.yaml'),
    `tokenizer: {train: {max_samples: 60, vocab_size: 600}}
model: {architecture: qwen3, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, tie_word_embeddings: true}
data: {dataset: sample, sequence_length: 64, shuffle_buffer_size: 50}
training: {global_batch_size: 4, max_steps: 10, threads: 2}
evaluation: {every_steps: 10, documents: 3, sample_tokens: 8}
`,
  );
});
afterAll(() => {
  killAll();
  rmSync(root, { recursive: true, force: true });
});

const train = (file: string, output: string, ...argv: string[]) => {
  const config = ['--config', join(root, 'tiny.yaml'), '--output', join(root, output)];
  return startIn({ env: { CANDLEWICK_NATIVE: file } }, 'train-streaming', ...config, ...argv);
};

it('is a binding with CUDA, and the other one has none', () => {
  expect(native().hasCuda()).toBe(true);
});

describe('its file', () => {
  it('holds machine code and PTX for the drivers of CUDA 13.0, and needs no library of CUDA', () => {
    const binary = inspectBinary(withCuda);
    expect(faults(binary)).toEqual([]);
    expect(binary.architectures).toEqual(['sm_80', 'sm_90a']);
    expect(binary.ptx).toEqual(['9.0 sm_80']);
    expect(binary.undefinedCuda).toEqual([]);
    for (const library of binary.needed) expect(library).not.toMatch(/cuda|cublas|curand|nvrtc/);
  });

  it('is told from the one without', () => {
    const wrong = faults(inspectBinary(without)).join('\n');
    expect(wrong).toContain('no machine code for sm_80');
    expect(wrong).toContain('PTX (version, target) is not there');
  });
});

/** What `transformers` and `tokenizers` gave, as the tokenizer's own tests keep it. */
interface Recorded {
  texts: string[];
  found: Record<string, { auto: number[][]; tokenizers: number[][] }>;
}

it('gives the ids of transformers and of the tokenizers package, with every pattern', async () => {
  const tests = join(repository, 'crates/tokenizer/tests');
  const { texts, found } = JSON.parse(
    readFileSync(join(tests, 'autotokenizer/ids.json'), 'utf8'),
  ) as Recorded;
  const varied = readFileSync(join(tests, 'varied.txt'), 'utf8');
  for (const pattern of ['gpt2', 'cl100k', 'o200k', 'llama3', 'qwen2'] as const) {
    const specialTokens = ['<|endoftext|>', '<|im_start|>', '<|im_start|>user'];
    const tokenizer = await Tokenizer.train([varied], { vocabSize: 700, pattern, specialTokens });
    const ids = texts.map((text) => Array.from(tokenizer.encode(text)));
    expect(ids, pattern).toEqual(found[pattern]?.auto);
    expect(ids, pattern).toEqual(found[pattern]?.tokenizers);
  }
});

describe('on a machine without CUDA', () => {
  it('trains on the CPU, with the losses of the other one to the last bit', async () => {
    for (const [file, output] of [
      [withCuda, 'with'],
      [without, 'without'],
    ] as const) {
      const program = train(file, output, '--device', 'cpu');
      expect(await program.ended, program.stderr).toBe(0);
    }
    const expected = await losses(root, 'without');
    expect(expected).toHaveLength(10);
    expect(await losses(root, 'with')).toEqual(expected);
  });

  it.skipIf(native().cudaReport([], 0).driver !== null)('says what is missing, and auto trains', async () => {
    const refused = train(withCuda, 'refused', '--device', 'cuda');
    expect(await refused.ended).toBe(3);
    expect(refused.stderr).toContain('CUDA_UNAVAILABLE');
    expect(refused.stderr).toMatch(/no NVIDIA driver: libcuda\.so\.1 was not found/);
    const chosen = train(withCuda, 'chosen', '--device', 'auto');
    expect(await chosen.ended, chosen.stderr).toBe(0);
    expect(chosen.stderr + chosen.stdout).toMatch(
      /device\s+cpu \(no NVIDIA driver: libcuda\.so\.1 was not found/,
    );
  });
});
