/** Batches left out by --skip-steps, in the real program. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isBuilt, killAll, start } from './support/program.js';

interface Row {
  step: number;
  tokens: number;
  documents: number;
  stream_hash: string;
}

describe.skipIf(!isBuilt)('--skip-steps', () => {
  let root: string;
  let config: string;
  let whole: Row[];
  const train = (output: string, ...argv: string[]) =>
    start('train-streaming', '--config', config, '--output', join(root, output), '--json', ...argv);
  const rows = async (output: string) =>
    (await readFile(join(root, output, 'metrics.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Row);
  const stream = ({ tokens, documents, stream_hash }: Row) => ({ tokens, documents, stream_hash });

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-skip-'));
    config = join(root, 'tiny.yaml');
    await writeFile(
      config,
      `tokenizer: {train: {max_samples: 60, vocab_size: 400}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: sample, sequence_length: 64, shuffle_buffer_size: 50}
training: {global_batch_size: 2, max_steps: 16, threads: 1}
checkpoint: {every_steps: 4}
evaluation: {documents: 0, sample_tokens: 0}
`,
    );
    const program = train('whole');
    expect(await program.ended, program.stderr).toBe(0);
    whole = await rows('whole');
    expect(whole).toHaveLength(16);
  });
  afterAll(async () => {
    killAll();
    await rm(root, { recursive: true, force: true });
  });

  it('steps over ranges of the stream, over resumes that add ranges', async () => {
    const first = train('skipping', '--skip-steps', '3:4', '--max-steps', '5');
    expect(await first.ended, first.stderr).toBe(0);
    expect(first.stderr).toMatch(/left out batches 3 to 4 \(256 tokens, \d+ documents\)/);
    // The state stands after batch 7: 8 and 9 are still ahead.
    const second = train('skipping', '--skip-steps', '3:4', '--skip-steps', '9:9', '--max-steps', '8');
    expect(await second.ended, second.stderr).toBe(0);
    expect(second.stderr).toContain('left out batch 9 (');
    const trained = [1, 2, 5, 6, 7, 8, 10, 11];
    expect((await rows('skipping')).map(stream)).toEqual(
      trained.map((batch) => whole.filter(({ step }) => step === batch).map(stream)[0]),
    );
    expect((await rows('skipping')).map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    const done = JSON.parse(second.stdout.trim().split('\n').at(-1) ?? '') as { stream_hash: string };
    expect(done.stream_hash).toBe(whole[10]?.stream_hash);
    expect(second.stderr).toContain(`stream hash ${done.stream_hash}`);

    const missing = train('skipping', '--skip-steps', '9:9', '--max-steps', '9');
    expect(await missing.ended).toBe(2);
    expect(missing.stderr).toMatch(/error\[RESUME_MISMATCH\]: the run left out batches 3:4/);
    const late = train('skipping', ...['3:4', '9:9', '11:12'].flatMap((range) => ['--skip-steps', range]));
    expect(await late.ended).toBe(2);
    expect(late.stderr).toMatch(
      /error\[RESUME_MISMATCH\]: .* batches 11:11, but the run has trained on them/,
    );
  });

  it('refuses what is no range, before anything is written', async () => {
    for (const range of ['5', '0:3', '4:3', 'a:b']) {
      const program = train('none', '--skip-steps', range);
      expect(await program.ended).toBe(2);
      expect(program.stderr).toContain('error[CONFIG_INVALID]');
      expect(program.stderr).toContain('--skip-steps (data.skip_steps)');
    }
  });
});
