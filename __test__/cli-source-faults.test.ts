/** A run whose hub goes away: it waits and says so, saves, ends with 4, and goes on to the same losses. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HubProcess } from './support/hub-start.js';
import { isBuilt, killAll, losses, startIn } from './support/program.js';
import { writeParquet } from './support/python.js';

describe.skipIf(!isBuilt)('train-streaming, with a hub that fails', () => {
  let root: string;
  let hub: HubProcess;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-cli-faults-'));
    await writeParquet(
      ...Array.from({ length: 12 }, (_, file) => ({
        path: join(root, 'data', `part-${String(file).padStart(2, '0')}.parquet`),
        documents: Array.from(
          { length: 40 },
          (__, i) => `document ${i} of ${file}: ${'some words, '.repeat(i)}`,
        ),
        groupRows: 10,
      })),
    );
    hub = await HubProcess.start({ repositories: { 'owner/small': join(root, 'data') } });
    await writeFile(
      join(root, 'tiny.yaml'),
      `tokenizer: {train: {max_samples: 30, vocab_size: 300}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: owner/small, sequence_length: 32, shuffle_buffer_size: 10, seed: 9, epochs: 1}
training: {global_batch_size: 2, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: 1000}
evaluation: {every_steps: 1000, documents: 3, sample_tokens: 0}
`,
    );
  });
  afterAll(async () => {
    killAll();
    await hub.close();
    await rm(root, { recursive: true, force: true });
  });

  const train = (output: string, ...argv: string[]) =>
    startIn(
      { env: { HF_ENDPOINT: hub.url, HF_HOME: join(root, 'hf') } },
      'train-streaming',
      '--config',
      join(root, 'tiny.yaml'),
      '--output',
      join(root, output),
      '--json',
      ...argv,
    );
  const eventsOf = (stdout: string) =>
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);

  it('ends with 4 and a checkpoint when the budget is spent; the same command goes on, bit for bit', async () => {
    const whole = train('whole');
    expect(await whole.ended, whole.stderr).toBe(0);

    // Of twelve files, each asked for at least once, the last cannot be had.
    await hub.tell({ rules: [{ ranged: true, after: 9, fault: { status: 503 } }] });
    const cut = train('cut', '--retry-budget', '1');
    expect(await cut.ended, cut.stderr).toBe(4);
    const events = eventsOf(cut.stdout);
    expect(events.find(({ type }) => type === 'source')).toMatchObject({
      kind: 'retry',
      cause: '503 from the hub',
      attempt: 1,
      budget: 1,
      message: expect.stringMatching(/^waiting for the data: 503 from the hub, attempt 1, next in/),
    });
    expect(events.at(-1)).toMatchObject({ type: 'error', code: 'SOURCE_UNAVAILABLE' });
    expect(cut.stderr).toContain('waiting for the data: 503 from the hub');
    const last = events.findLast(({ type }) => type === 'step')?.step as number;
    const expected = await losses(root, 'whole');
    expect(last).toBeGreaterThan(0);
    expect(last).toBeLessThan(expected.length);
    const saved = await readdir(join(root, 'cut', 'checkpoints'));
    expect(saved.sort().at(-1)).toBe(`step-${String(last).padStart(8, '0')}`);

    await hub.tell({ rules: [] });
    const rest = train('cut');
    expect(await rest.ended, rest.stderr).toBe(0);
    expect(await losses(root, 'cut')).toEqual(expected);
  });

  it('waits meanwhile, and goes on by itself', async () => {
    await hub.tell({ rules: [{ ranged: true, after: 9, times: 6, fault: { status: 503 } }] });
    const run = train('waits');
    expect(await run.ended, run.stderr).toBe(0);
    const kinds = eventsOf(run.stdout)
      .filter(({ type }) => type === 'source')
      .map(({ kind }) => kind);
    expect(kinds.at(-1)).toBe('recovered');
    expect(kinds.filter((kind) => kind === 'retry').length).toBeGreaterThan(0);
    expect(await losses(root, 'waits')).toEqual(await losses(root, 'whole'));
  });
});
