/** `candlewick data peek` on a real run. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PeekedBatch } from '../src/run/peek.js';
import { isBuilt, killAll, start } from './support/program.js';
import { writeParquet } from './support/python.js';

describe.skipIf(!isBuilt)('candlewick data peek', () => {
  let root: string;
  const text = (f: number, i: number) => `document ${i} of file ${f}: ${'a few words, '.repeat(i % 23)}`;
  const peek = async (...argv: string[]) => {
    const program = start('candlewick', 'data', 'peek', join(root, 'run'), ...argv);
    expect(await program.ended, program.stderr).toBe(0);
    return program;
  };
  const peekJson = async (...argv: string[]) =>
    JSON.parse((await peek('--json', ...argv)).stdout) as PeekedBatch;

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-peek-'));
    await writeParquet(
      ...[120, 90].map((documents, f) => ({
        path: join(root, 'data', `part-${f}.parquet`),
        documents: Array.from({ length: documents }, (_, i) => text(f, i)),
        groupRows: 7,
      })),
    );
    const config = join(root, 'tiny.yaml');
    await writeFile(
      config,
      `tokenizer: {train: {max_samples: 200, vocab_size: 320}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: ${join(root, 'data')}, sequence_length: 32, shuffle_buffer_size: 50, skip_steps: ["3:4"]}
training: {global_batch_size: 4, max_steps: 12, threads: 1}
checkpoint: {every_steps: 4}
evaluation: {documents: 0, sample_tokens: 0}
`,
    );
    const program = start('train-streaming', '--config', config, '--output', join(root, 'run'));
    expect(await program.ended, program.stderr).toBe(0);
  });
  afterAll(async () => {
    killAll();
    await rm(root, { recursive: true, force: true });
  });

  it('names the place of each document, and covers the batch; from a checkpoint and from the beginning', async () => {
    const early = await peekJson('--batch', '5');
    const late = await peekJson('--batch', '12');
    expect([early.step, early.checkpoint]).toEqual([3, null]);
    expect(late.checkpoint).toContain('step-00000008');
    for (const { documents } of [early, late]) {
      let at = 0;
      for (const { file, row_group, row, begin, end, tokens, offset, ids, text: spelled } of documents) {
        expect(begin.row * 32 + begin.column).toBe(at);
        at += tokens;
        expect(end.row * 32 + end.column).toBe(at - 1);
        expect(ids).toHaveLength(tokens);
        const f = Number(/part-(\d)/.exec(file)?.[1]);
        const whole = text(f, (row_group ?? NaN) * 7 + row);
        expect(offset === 0 ? whole.startsWith(spelled) : whole.includes(spelled), spelled).toBe(true);
      }
      expect(at).toBe(128);
    }
  });

  it('shows a batch that was left out, and prints for people', async () => {
    expect((await peekJson('--batch', '4')).step).toBeNull();
    const { stdout } = await peek('--batch', '4', '--documents', '1', '--tokens');
    expect(stdout).toMatch(/^batch 4 \(left out\): 4 × 32 tokens, \d+ documents, 1 shown\n/);
    expect(stdout).toMatch(/part-\d\.parquet, row group \d+, row \d, epoch 1\n {2}tokens \d+–\d+ of \d+/);
  });
});
