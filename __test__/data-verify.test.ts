/** `candlewick data verify` on real runs. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isBuilt, killAll, start } from './support/program.js';
import { writeParquet } from './support/python.js';

describe.skipIf(!isBuilt)('candlewick data verify', () => {
  let root: string;
  let config: string;
  const data = () => join(root, 'data');
  const text = (f: number, i: number) => `document ${i} of file ${f}: ${'a few words, '.repeat(i % 23)}`;
  const writeData = (change: (f: number, i: number) => string = text) =>
    writeParquet(
      ...[120, 90, 40].map((documents, f) => ({
        path: join(data(), `part-${f}.parquet`),
        documents: Array.from({ length: documents }, (_, i) => change(f, i)),
        groupRows: 7,
      })),
    );
  const train = (output: string, ...argv: string[]) =>
    start('train-streaming', '--config', config, '--output', join(root, output), '--json', ...argv);
  const verify = async (output: string, ...argv: string[]) => {
    const program = start('candlewick', 'data', 'verify', join(root, output), ...argv);
    return { code: await program.ended, stdout: program.stdout, stderr: program.stderr };
  };
  const tamper = async (output: string, step: number, key: string, value: unknown) => {
    const path = join(root, output, 'metrics.jsonl');
    const lines = (await readFile(path, 'utf8')).split('\n');
    const changed = lines.map((line) => {
      if (line === '') return line;
      const row = JSON.parse(line) as Record<string, unknown>;
      return row['step'] === step && 'loss' in row ? JSON.stringify({ ...row, [key]: value }) : line;
    });
    expect(changed).not.toEqual(lines);
    await writeFile(path, changed.join('\n'));
  };

  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-verify-'));
    await writeData();
    config = join(root, 'tiny.yaml');
    await writeFile(
      config,
      `tokenizer: {train: {max_samples: 200, vocab_size: 320}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: ${data()}, sequence_length: 32, shuffle_buffer_size: 50, seed: 9, max_samples: 60, skip_steps: ["3:4"]}
training: {global_batch_size: 4, micro_batch_size: 2, threads: 1}
checkpoint: {every_steps: 8, keep_last: 9}
evaluation: {documents: 5, sample_tokens: 0}
logging: {every_steps: 3}
`,
    );
    // Ended by a limit in a batch that is not full, then by another, then by a number of steps.
    for (const limits of [
      ['--max-samples', '60'],
      ['--max-samples', '90'],
      ['--max-samples', '200', '--max-steps', '33'],
    ]) {
      const program = train('run', ...limits);
      expect(await program.ended, program.stderr).toBe(0);
    }
  });
  afterAll(async () => {
    killAll();
    await rm(root, { recursive: true, force: true });
  });

  it('agrees with a run of several resumes, filled-up batches and left-out ones; from a checkpoint too', async () => {
    const all = await verify('run', '--json');
    expect(all.code, all.stderr).toBe(0);
    const verdict = JSON.parse(all.stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>;
    const rows = (await readFile(join(root, 'run', 'metrics.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>)
      .filter((row) => 'loss' in row);
    const last = rows.at(-1) ?? {};
    // There is a batch in the middle that was filled up, where a limit ended the run once.
    expect(new Set(rows.map(({ tokens }) => Number(tokens) % 128)).size).toBeGreaterThan(1);
    expect(verdict).toMatchObject({ match: true, from: 1, to: last['step'], checkpoint: null });
    expect(verdict['stream_hash']).toBe(last['stream_hash']);
    const part = await verify('run', '--steps', '18:24');
    expect(part.code, part.stderr).toBe(0);
    expect(part.stderr).toContain('step-00000016');
    expect(part.stdout).toMatch(/^steps 17–24 match: \d+ places compared/);
  });

  it('finds a hash that was changed, and says between which steps', async () => {
    await cp(join(root, 'run'), join(root, 'tampered'), { recursive: true });
    await tamper('tampered', 12, 'stream_hash', '0123456789abcdef');
    const found = await verify('tampered');
    expect(found.code).toBe(4);
    expect(found.stdout).toMatch(
      /differs between steps 10 and 12 \(step 9 still matches\).*0123456789abcdef/,
    );
    const elsewhere = await verify('tampered', '--steps', '18:24');
    expect(elsewhere.code, elsewhere.stderr).toBe(0);
  });

  it('counts batches whose update was left out, since they are no steps', async () => {
    await cp(join(root, 'run'), join(root, 'skipped'), { recursive: true });
    await rm(join(root, 'skipped', 'checkpoints'), { recursive: true });
    const path = join(root, 'skipped', 'metrics.jsonl');
    const rewrite = async (change: (row: Record<string, unknown>) => object) => {
      const lines = (await readFile(path, 'utf8')).trim().split('\n');
      const rows = lines.map((line) => change(JSON.parse(line) as Record<string, unknown>));
      await writeFile(path, `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`);
    };
    // As if batch 11 had not been trained on: every later step is the one before, on the same data.
    await rewrite((row) => (Number(row['step']) < 12 ? row : { ...row, step: Number(row['step']) - 1 }));
    const unsaid = await verify('skipped');
    expect(unsaid.code).toBe(4);
    await rewrite((row) => (row['step'] === 11 && 'loss' in row ? { ...row, skipped_steps: 1 } : row));
    const said = await verify('skipped');
    expect(said.code, said.stdout + said.stderr).toBe(0);
  });

  it('finds another tokenizer, with checkpoints and without', async () => {
    await cp(join(root, 'run'), join(root, 'retokenized'), { recursive: true });
    await rm(join(root, 'retokenized', 'tokenizer'), { recursive: true });
    const other = start(
      'train-tokenizer-streaming',
      '--dataset',
      data(),
      '--vocab-size',
      '300',
      '--output',
      join(root, 'retokenized', 'tokenizer'),
    );
    expect(await other.ended, other.stderr).toBe(0);
    const refused = await verify('retokenized');
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/error\[RESUME_MISMATCH\].*tokenizer \(digest\)/);
    await rm(join(root, 'retokenized', 'checkpoints'), { recursive: true });
    const found = await verify('retokenized');
    expect(found.code).toBe(4);
    expect(found.stdout).toContain('the stream differs between steps 1 and 3');
  });

  it('reads a run while it trains', async () => {
    const program = train('running', '--max-samples', '100000', '--max-steps', '100000');
    await program.saw(/"type":"step","step":30,/);
    const found = await verify('running', '--steps', '1:30');
    expect(found.code, found.stderr).toBe(0);
    expect(program.child.exitCode).toBeNull();
    program.child.kill('SIGTERM');
    expect(await program.ended, program.stderr).toBe(143);
  });

  it('finds a document that was changed, and files that are others', async () => {
    await writeData((f, i) => (f === 1 ? text(f, i).replace('few', 'many') : text(f, i)));
    const found = await verify('run');
    expect(found.code, found.stderr).toBe(4);
    expect(found.stdout).toContain('the stream differs');
    await rm(join(data(), 'part-2.parquet'));
    const refused = await verify('run');
    expect(refused.code).toBe(2);
    expect(refused.stderr).toMatch(/error\[RESUME_MISMATCH\].*file list of the dataset/);
  });

  it('refuses what is no run, and steps that were not logged', async () => {
    expect((await verify('nowhere')).stderr).toContain('error[CONFIG_INVALID]');
    expect((await verify('run', '--steps', '900:901')).stderr).toContain('error[USAGE]');
    expect((await verify('run', '--steps', '5')).stderr).toContain('error[USAGE]');
  });
});
