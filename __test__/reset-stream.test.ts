/** `--reset-stream`: the weights go on, and the data start over, in one history. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus } from '../src/corpus/index.js';
import { StreamingTextDataLoader } from '../src/data/index.js';
import type { StepRow } from '../src/run/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { LocalHub } from './support/hub.js';
import { isBuilt, killAll, losses, startIn } from './support/program.js';
import { python, writeParquet } from './support/python.js';

let folder: string;
let hub: LocalHub;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-reset-'));
  await writeParquet(
    ...['old', 'new'].map((name) => ({
      path: join(folder, name, 'part-0.parquet'),
      documents: Array.from({ length: 200 }, (_, i) => `${name} ${i}: ${'some words '.repeat(i % 19)}`),
      groupRows: 10,
    })),
  );
  hub = await LocalHub.start({ 'made/old': join(folder, 'old'), 'made/new': join(folder, 'new') });
  env = { HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

let root: string;
let config: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-reset-run-'));
  config = join(root, 'tiny.yaml');
  await writeFile(
    config,
    `tokenizer: {train: {max_samples: 100, vocab_size: 320}}
model: {architecture: qwen3, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
data: {dataset: made/old, sequence_length: 32, shuffle_buffer_size: 40}
training: {global_batch_size: 2, max_steps: 10, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: 5, keep_last: 9}
evaluation: {documents: 0, sample_tokens: 0}
`,
  );
});
afterEach(async () => {
  killAll();
  await rm(root, { recursive: true, force: true });
});

const train = (output: string, ...argv: string[]) =>
  startIn({ env }, 'train-streaming', '--config', config, '--output', join(root, output), '--json', ...argv);
const onNew = ['--dataset', 'made/new', '--max-steps', '30'];

async function done(program: ReturnType<typeof train>): Promise<void> {
  expect(await program.ended, program.stderr).toBe(0);
}

async function rowsOf(output: string): Promise<StepRow[]> {
  const text = await readFile(join(root, output, 'metrics.jsonl'), 'utf8');
  const rows = text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as StepRow);
  return rows.filter((row) => 'loss' in row);
}

/** The rolling hash, as interface and README define it. */
function roll(hash: string, targets: Iterable<number>): string {
  let h = BigInt(`0x${hash}`);
  for (const id of targets) h = ((h ^ BigInt(id)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return h.toString(16).padStart(16, '0');
}

describe.skipIf(!isBuilt)('--reset-stream', () => {
  it('is what the refusal of other data points to; then the new data come from their beginning, in one history', async () => {
    await done(train('run'));
    const refused = train('run', ...onNew);
    expect(await refused.ended).toBe(2);
    expect(refused.stderr).toMatch(
      /error\[RESUME_MISMATCH\].*data\.dataset is made\/old in the run and made\/new now/,
    );
    expect(refused.stderr).toMatch(/hint: .*--reset-stream keeps the weights and starts the data over/);

    const reset = train('run', ...onNew, '--reset-stream');
    await done(reset);
    expect(reset.stderr).toContain('the data start over');
    const rows = await rowsOf('run');
    expect(rows.map(({ step, tokens }) => [step, tokens])).toEqual(
      Array.from({ length: 30 }, (_, i) => [i + 1, 64 * (i + 1)]),
    );
    expect(await readFile(join(root, 'run', 'config.yaml'), 'utf8')).toContain('dataset: made/new');

    const tokenizer = await Tokenizer.fromFile(join(root, 'run', 'tokenizer'));
    const [endOfText] = tokenizer.encode('<|endoftext|>');
    await using corpus = new HuggingFaceStreamingCorpus('made/new', {
      python,
      env: { ...process.env, ...env },
    });
    const shape = { batchSize: 2, sequenceLength: 32, shuffleBufferSize: 40, seed: 1 };
    const targets: number[] = [];
    for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, shape)) {
      targets.push(...batch.targets);
      if (targets.length === 20 * 64) break;
    }
    const before = rows[9] as StepRow;
    expect(rows[29]?.stream_hash).toBe(roll(before.stream_hash, targets));
    const ended = targets.filter((id) => id === endOfText).length;
    expect(rows[29]?.documents).toBe(before.documents + ended);
  });

  it('is done once: killed and repeated without it, the run goes on with the new data', async () => {
    for (const output of ['whole', 'killed']) await done(train(output));
    await done(train('whole', ...onNew, '--reset-stream'));
    const killed = train('killed', ...onNew, '--reset-stream');
    await killed.saw(/"type":"checkpoint","step":15,/);
    killed.child.kill('SIGKILL');
    expect(await killed.ended).toBe('SIGKILL');
    await done(train('killed', ...onNew));
    const seen = async (output: string) =>
      (await rowsOf(output)).map(({ step, stream_hash, documents, epoch }) => [
        step,
        stream_hash,
        documents,
        epoch,
      ]);
    expect(await seen('killed')).toEqual(await seen('whole'));
    expect(await losses(root, 'killed')).toEqual(await losses(root, 'whole'));
  });

  it('is known to data verify and data peek', async () => {
    await done(train('run'));
    await done(train('run', ...onNew, '--reset-stream'));
    const run = join(root, 'run');
    const verified = startIn({ env }, 'candlewick', 'data', 'verify', run);
    await done(verified);
    expect(verified.stderr).toContain('the data were started over after step 10');
    expect(verified.stdout).toMatch(/^steps 11–30 match: /);
    const peeked = startIn({ env }, 'candlewick', 'data', 'peek', run, '--batch', '11', '--json');
    await done(peeked);
    const { documents, stream_hash } = JSON.parse(peeked.stdout) as {
      documents: { dataset: string }[];
      stream_hash: string;
    };
    expect(new Set(documents.map(({ dataset }) => dataset))).toEqual(new Set(['made/new']));
    expect(stream_hash).toBe((await rowsOf('run'))[10]?.stream_hash);
    const older = startIn({ env }, 'candlewick', 'data', 'peek', run, '--batch', '10');
    expect(await older.ended).toBe(2);
    expect(older.stderr).toContain('batch 10 is of the stream before');
  });

  it('keeps the count of documents: max_samples holds for the data before and after', async () => {
    await done(train('run', '--max-steps', '1000', '--max-samples', '40'));
    const first = (await rowsOf('run')).at(-1);
    expect(first?.documents).toBe(40);
    await done(train('run', ...onNew, '--max-steps', '1000', '--max-samples', '90', '--reset-stream'));
    const rows = await rowsOf('run');
    expect(rows.at(-1)?.documents).toBe(90);
    expect(rows.map(({ step }) => step)).toEqual(rows.map((_, i) => i + 1));
  });

  it('excuses nothing but the data', async () => {
    await done(train('run'));
    const other = train('run', ...onNew, '--reset-stream', '--set', 'optimizer.lr=0.5');
    expect(await other.ended).toBe(2);
    expect(other.stderr).toMatch(/error\[RESUME_MISMATCH\].*optimizer\.lr is 0\.001 in the run and 0\.5 now/);
    expect(other.stderr).not.toContain('data.dataset is');
    await done(train('other', '--set', 'tokenizer.train.vocab_size=310', '--max-steps', '1'));
    const tokenizer = ['--tokenizer', join(root, 'other', 'tokenizer')];
    const third = train('run', ...onNew, '--reset-stream', ...tokenizer);
    expect(await third.ended).toBe(2);
    expect(third.stderr).toMatch(/error\[RESUME_MISMATCH\].*tokenizer \(digest\)/);
  });
});
