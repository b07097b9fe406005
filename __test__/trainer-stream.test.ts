/** What the trainer consumed, and what a run leaves on the disk. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalHub } from './support/hub.js';
import { isBuilt, killAll, started, startIn } from './support/program.js';
import { python, repository, writeParquet } from './support/python.js';
import { slowReference } from './support/reference.js';

const hasStrace = spawnSync('strace', ['--version']).status === 0;

describe.skipIf(!isBuilt)('a run of train-streaming', () => {
  let root: string;
  let hub: LocalHub;
  let config: string;
  const data = () => join(root, 'data');
  beforeAll(async () => {
    root = await realpath(await mkdtemp(join(tmpdir(), 'candlewick-stream-')));
    const text = (f: number, i: number) => `document ${i} of file ${f}: ${'a few words, '.repeat(i % 23)}`;
    await writeParquet(
      ...[120, 90, 40, 7, 60].map((count, f) => ({
        path: join(root, 'data', `part-${f}.parquet`),
        documents: Array.from({ length: count }, (_, i) => text(f, i)),
        groupRows: 7,
      })),
    );
    hub = await LocalHub.start({ 'owner/small': data() });
    config = join(root, 'tiny.yaml');
    await writeFile(
      config,
      `tokenizer: {train: {max_samples: 200, vocab_size: 320}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: owner/small, sequence_length: 32, shuffle_buffer_size: 50, seed: 9}
training: {global_batch_size: 4, micro_batch_size: 2, max_steps: 40, threads: 1}
checkpoint: {every_steps: 15}
evaluation: {every_steps: 100, documents: 11}
`,
    );
  });
  afterAll(async () => {
    killAll();
    await hub.close();
    await rm(root, { recursive: true, force: true });
  });
  const environment = () => ({ HF_ENDPOINT: hub.url, HF_HOME: join(root, 'hf') });

  it('consumes the tokens of the reference, held-out documents left out, over an interruption', async () => {
    const output = join(root, 'run');
    const train = (...argv: string[]) =>
      startIn(
        { env: environment() },
        'train-streaming',
        '--config',
        config,
        '--output',
        output,
        '--json',
        ...argv,
      );
    const first = train('--batch-size', '13');
    await first.saw(/"type":"checkpoint","step":15,/);
    first.child.kill('SIGKILL');
    await first.ended;
    const second = train();
    expect(await second.ended, second.stderr).toBe(0);
    const rows = (await readFile(join(output, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const steps = rows
      .map((row) => JSON.parse(row) as { step: number; loss?: number; tokens: number; stream_hash: string })
      .filter(({ loss }) => loss !== undefined);
    expect(steps.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    const request = { root: data(), seed: 9, epoch: 1, window: 50, held_out: 11 };
    for (const { tokens, stream_hash } of [steps[0], steps[20], steps[39]].filter(
      (row) => row !== undefined,
    )) {
      const tokenizer = join(output, 'tokenizer', 'tokenizer.json');
      const { hash } = await slowReference({ ...request, tokenizer, tokens });
      expect(stream_hash).toBe(hash);
    }
  });

  it.skipIf(!hasStrace)('writes nothing outside the run but the hub library’s metadata', async () => {
    const [log, output, temporary] = [join(root, 'trace'), join(root, 'traced'), join(root, 'tmp')];
    await mkdir(temporary);
    const program = [process.execPath, join(repository, 'bin/train-streaming.js'), '--config', config];
    // Not waited for in place: the hub answers from this process.
    const traced = spawn(
      'strace',
      [
        '-f',
        '-qq',
        '-e',
        'trace=open,openat,creat',
        '-o',
        log,
        ...program,
        '--output',
        output,
        '--max-steps',
        '3',
      ],
      {
        cwd: root,
        env: { ...process.env, ...environment(), CANDLEWICK_PYTHON: python, TMPDIR: temporary },
        stdio: 'ignore',
      },
    );
    started(traced);
    expect(await once(traced, 'close')).toEqual([0, null]);
    const opened = [
      ...(await readFile(log, 'utf8')).matchAll(/"([^"]+)", ([A-Z_|]*O_(?:WRONLY|RDWR)[A-Z_|]*)/g),
    ];
    const outside = opened
      .map(([, path = '']) => path)
      .filter(
        (path) =>
          !/^\/(dev|proc)\//.test(path) &&
          !path.startsWith(output) &&
          !path.startsWith(temporary) &&
          !path.startsWith(`${root}/hf/`),
      );
    // Python may cache compiled modules of its own libraries; a lock keeps two processes off the run.
    expect(outside.filter((path) => !/__pycache__|\.lock$/.test(path))).toEqual([]);
    expect(opened.filter(([, path = '']) => path.startsWith(output)).length).toBeGreaterThan(0);
    // Python's tempfile tries its folder out with four bytes, which it removes.
    expect(await readdir(temporary)).toEqual([]);
    // What the hub library keeps is metadata: nothing of a document's text is in it.
    const grep = spawnSync('grep', ['-rl', 'a few words', join(root, 'hf')], { encoding: 'utf8' });
    expect(grep.stdout).toBe('');
  });
});
