/** Training runs on several sources: configuration, metrics, resume, and what is said to people. */
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { HuggingFaceStreamingCorpus, MultiCorpus } from '../src/corpus/index.js';
import { Trainer } from '../src/run/index.js';
import type { StepRow } from '../src/run/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { LocalHub } from './support/hub.js';
import { isBuilt, killAll, losses, startIn } from './support/program.js';
import { python, writeParquet } from './support/python.js';

const names = ['made/prose', 'made/code'];
const counts = [300, 90];

let folder: string;
let hub: LocalHub;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-mixture-'));
  await writeParquet(
    ...counts.map((count, s) => ({
      path: join(folder, String(s), 'part-0.parquet'),
      documents: Array.from({ length: count }, (_, i) => `${names[s]} ${i}: ${'some words '.repeat(i % 23)}`),
      groupRows: 10,
      column: s === 1 ? 'content' : 'text',
    })),
    { path: join(folder, 'empty', 'part-0.parquet'), documents: ['', null] },
  );
  hub = await LocalHub.start({
    'made/prose': join(folder, '0'),
    'made/code': join(folder, '1'),
    'made/empty': join(folder, 'empty'),
  });
  env = { HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

let root: string;
let config: string;
const yaml = `tokenizer: {train: {max_samples: 100, vocab_size: 320}}
model: {architecture: qwen3, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
data:
  sources:
    - {dataset: made/prose, weight: 3}
    - {dataset: made/code, text_column: content, on_exhausted: repeat}
  sequence_length: 32
  shuffle_buffer_size: 40
training: {global_batch_size: 2, max_steps: 40, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: 8}
evaluation: {every_steps: 20, documents: 4, sample_tokens: 0}
`;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-mixture-run-'));
  config = join(root, 'mixed.yaml');
  await writeFile(config, yaml);
});
afterEach(async () => {
  killAll();
  await rm(root, { recursive: true, force: true });
});

const train = (output: string, ...argv: string[]) =>
  startIn({ env }, 'train-streaming', '--config', config, '--output', join(root, output), '--json', ...argv);
const rowsOf = async (output: string) =>
  (await readFile(join(root, output, 'metrics.jsonl'), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as StepRow)
    .filter((row) => 'loss' in row);
const sourcesOf = async (output: string) =>
  (parse(await readFile(join(root, output, 'config.yaml'), 'utf8')) as { data: { sources: unknown } }).data
    .sources;

describe.skipIf(!isBuilt)('a run on several sources', () => {
  it('has the mix in its metrics and at its end, and pins each revision', async () => {
    const run = train('run');
    expect(await run.ended, run.stderr).toBe(0);
    const rows = await rowsOf('run');
    expect(rows).toHaveLength(40);
    for (const { mix, tokens, epoch } of rows.slice(10)) {
      const [prose, code] = mix ?? [];
      expect((prose?.share ?? 0) + (code?.share ?? 0)).toBeCloseTo(1, 10);
      // One document is at most 300 tokens ahead.
      expect(Math.abs((prose?.share ?? 0) - 0.75)).toBeLessThan(300 / tokens);
      expect(epoch).toBe(Math.min(prose?.epoch ?? 0, code?.epoch ?? 0));
    }
    expect(run.stderr).toMatch(
      /tokens came from made\/prose 7\d\.\d % \(weight 75\.0 %, epoch \d\), made\/code 2\d\.\d % \(weight 25\.0 %, epoch \d\)/,
    );
    const source = { config_name: 'default', split: 'train', text_template: null };
    expect(await sourcesOf('run')).toMatchObject([
      { ...source, config_name: null, dataset: 'made/prose', weight: 3, revision: hub.commit('made/prose') },
      {
        dataset: 'made/code',
        text_column: 'content',
        on_exhausted: 'repeat',
        revision: hub.commit('made/code'),
      },
    ]);
    // The first four of each source: 8 texts, and so many bytes.
    const heldOutBytes = [0, 1, 2, 3]
      .flatMap((i) => names.map((name) => `${name} ${i}: ${'some words '.repeat(i)}`))
      .reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    expect(run.stdout).toMatch(/"type":"eval","step":40,/);
    const start = JSON.parse(run.stdout.split('\n').find((line) => line.includes('"type":"start"')) ?? '');
    expect(start).toMatchObject({
      held_out: { documents: 8, bytes: heldOutBytes },
      sources: [
        { dataset: 'made/prose', weight: 3, on_exhausted: 'stop' },
        { dataset: 'made/code', weight: 1, on_exhausted: 'repeat' },
      ],
    });
    const again = startIn({ env }, 'train-streaming', '--config', join(root, 'run', 'config.yaml'), '--json');
    expect(await again.ended, again.stderr).toBe(0);
    expect(again.stdout).not.toContain('"type":"step"');
  });

  it('killed after a checkpoint goes on with the losses, hashes and mix of one that was not', async () => {
    const whole = train('whole');
    expect(await whole.ended, whole.stderr).toBe(0);
    for (const checkpoint of [8, 24]) {
      const killed = train('killed');
      await killed.saw(new RegExp(`"type":"checkpoint","step":${checkpoint},`));
      killed.child.kill('SIGKILL');
      expect(await killed.ended).toBe('SIGKILL');
    }
    const last = train('killed');
    expect(await last.ended, last.stderr).toBe(0);
    expect(await losses(root, 'killed')).toEqual(await losses(root, 'whole'));
    const told = async (output: string) =>
      (await rowsOf(output)).map(({ stream_hash, mix, documents, epoch }) => [
        stream_hash,
        mix,
        documents,
        epoch,
      ]);
    expect(await told('killed')).toEqual(await told('whole'));
    const inspect = async (...argv: string[]) => {
      const program = startIn({ env }, 'candlewick', 'data', ...argv);
      expect(await program.ended, program.stderr).toBe(0);
      return program.stdout;
    };
    expect(await inspect('verify', join(root, 'killed'))).toMatch(/^steps 1–40 match: /);
    const peeked = JSON.parse(await inspect('peek', join(root, 'killed'), '--batch', '30', '--json')) as {
      stream_hash: string;
      documents: { dataset: string; text: string; offset: number }[];
    };
    expect(peeked.stream_hash).toBe((await rowsOf('whole'))[29]?.stream_hash);
    // Each text begins with the name of its source.
    const whole30 = peeked.documents.filter(({ offset }) => offset === 0);
    expect(whole30.length).toBeGreaterThan(0);
    for (const { dataset, text } of whole30) {
      expect(text.slice(0, dataset.length)).toBe(dataset.slice(0, text.length));
    }
  });

  it('is not gone on with as another mixture: key, old and new are named', async () => {
    const run = train('run', '--max-steps', '2');
    expect(await run.ended, run.stderr).toBe(0);
    const failure = async (...argv: string[]) => {
      const other = train('run', '--max-steps', '4', ...argv);
      expect(await other.ended, other.stderr).toBe(2);
      expect(other.stderr).toContain('error[RESUME_MISMATCH]');
      return other.stderr;
    };
    expect(await failure('--set', 'data.sources.1.weight=2')).toContain(
      'data.sources[1].weight is 1 in the run and 2 now',
    );
    expect(await failure('--set', 'data.sources.0.on_exhausted=drop')).toContain(
      'data.sources[0].on_exhausted is stop in the run and drop now',
    );
    expect(await failure('--set', 'data.sources=[{dataset: made/prose}]')).toContain(
      'data is made/prose, made/code in the run and made/prose now',
    );
    expect(await failure('--set', 'data.sources=null', '--dataset', 'made/prose')).toContain(
      'data is made/prose, made/code in the run and made/prose now',
    );
  });

  it('refuses flags for one source, before anything is written', async () => {
    const run = train('run', '--dataset', 'made/prose', '--split', 'train');
    expect(await run.ended).toBe(2);
    expect(run.stderr).toContain('--dataset (data.dataset): the configuration has several sources');
    expect(run.stderr).toContain('--split (data.split): the configuration has several sources');
    expect(existsSync(join(root, 'run'))).toBe(false);
  });

  it('names a source that is empty, and one that has too little to hold out of', async () => {
    const empty = train(
      'run',
      '--set',
      'data.sources.1.dataset=made/empty',
      '--set',
      'data.sources.1.text_column=text',
      '--set',
      'evaluation.documents=0',
    );
    expect(await empty.ended, empty.stderr).toBe(4);
    expect(empty.stderr).toMatch(
      /error\[DATASET_EMPTY\].*sources\[1\] \(made\/empty\) has no document with text/,
    );
    const held = train('held', '--set', 'evaluation.documents=9', '--max-steps', '1000');
    expect(await held.ended).toBe(2);
    expect(held.stderr).toContain('holds out 9 of the 90 documents of sources[1] (made/code), more than 5 %');
  });
});

describe.skipIf(!isBuilt)('Trainer.create with a MultiCorpus', () => {
  it('trains on it and writes its sources down', async () => {
    const options = { python, env: { ...process.env, ...env } };
    await using corpus = new MultiCorpus(
      [
        new HuggingFaceStreamingCorpus('made/prose', options),
        {
          corpus: new HuggingFaceStreamingCorpus('made/code', { ...options, textColumn: 'content' }),
          weight: 0.5,
          onExhausted: 'drop',
        },
      ],
      { maxSamples: 120 },
    );
    const tokenizer = await Tokenizer.train(corpus, { vocabSize: 300 });
    const { data, ...rest } = parse(yaml) as { data: Record<string, unknown> };
    await using trainer = await Trainer.create({
      config: { ...rest, data, training: { global_batch_size: 2, threads: 1 } },
      corpus,
      tokenizer,
      output: join(root, 'own'),
    });
    let last: unknown;
    for await (const event of trainer.run()) last = event;
    expect(last).toMatchObject({
      type: 'done',
      reason: 'limit',
      documents: 120,
      mix: [{ epoch: 1 }, { epoch: 1 }],
    });
    expect(await sourcesOf('own')).toMatchObject([
      { dataset: 'made/prose', weight: 1, on_exhausted: 'stop', revision: hub.commit('made/prose') },
      { dataset: 'made/code', text_column: 'content', weight: 0.5, on_exhausted: 'drop' },
    ]);
  });
});
