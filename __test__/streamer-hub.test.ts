/** The real `datasets` library, through streamer.py, against a hub on this machine. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { documentsOf, type Frame } from './support/frames.js';
import { LocalHub } from './support/hub.js';
import { hasSharedData, sharedData, writeParquet } from './support/python.js';
import { Session } from './support/session.js';

const documents = Array.from({ length: 90 }, (_, i) => `document ${i}`);
let folder: string;
let hub: LocalHub;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-hub-'));
  await writeParquet(
    { path: join(folder, 'shards/data/b.parquet'), documents: documents.slice(40), groupRows: 20 },
    { path: join(folder, 'shards/data/a.parquet'), documents: documents.slice(0, 40), groupRows: 20 },
    { path: join(folder, 'shards/held/a.parquet'), documents: ['held'] },
    { path: join(folder, 'shards/other/a.parquet'), documents: ['other'], column: 'body' },
    { path: join(folder, 'private/data/train.parquet'), documents: ['secret'] },
    { path: join(folder, 'empty/data/train.parquet'), documents: [] },
  );
  await writeFile(
    join(folder, 'shards/README.md'),
    `---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/*.parquet
  - split: validation
    path: held/*.parquet
- config_name: other
  data_files:
  - split: train
    path: other/*.parquet
---
# Shards
`,
  );
  await mkdir(join(folder, 'lines'), { recursive: true });
  await writeFile(
    join(folder, 'lines/train.jsonl'),
    documents.map((text) => `${JSON.stringify({ text })}\n`).join(''),
  );
  await mkdir(join(folder, 'bare'), { recursive: true });
  await writeFile(join(folder, 'bare/README.md'), '# nothing here\n');
  hub = await LocalHub.start({
    'some/shards': join(folder, 'shards'),
    'some/lines': join(folder, 'lines'),
    'some/bare': join(folder, 'bare'),
    'some/empty': join(folder, 'empty'),
    'some/private': { folder: join(folder, 'private'), token: 'hf_right' },
    'some/gated': { folder: join(folder, 'private'), gated: true },
    ...(hasSharedData ? { 'HuggingFaceFW/fineweb': join(sharedData, 'web-text') } : {}),
  });
});
afterEach(() => {
  hub.script = null;
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

/** A session on the hub, with a cache of its own so that nothing is remembered from another test. */
async function open(args: string[], env: Record<string, string> = {}): Promise<Session> {
  const HF_HOME = await mkdtemp(join(folder, 'home-'));
  return new Session(args, { HF_ENDPOINT: hub.url, HF_HOME, HF_TOKEN: undefined, ...env });
}

async function complaintOf(args: string[], env: Record<string, string> = {}) {
  await using session = await open(args, env);
  const complaint = await session.complaint();
  expect(await session.exit).toEqual({ code: 1, signal: null });
  return complaint;
}

describe('a dataset of the hub', () => {
  it('is pinned to its commit, lists its files as repository paths and gives every row', async () => {
    await using session = await open(['--dataset', 'some/shards']);
    const ready = await session.ready();
    expect(ready).toMatchObject({
      config_name: 'default',
      split: 'train',
      revision: hub.commit('some/shards'),
      files: ['data/a.parquet', 'data/b.parquet'],
      row_groups: true,
      columns: ['number', 'text'],
    });
    expect(ready.versions.datasets).toMatch(/^\d+\./);
    expect([...(await session.documents(0)), ...(await session.documents(1))]).toEqual(documents);
  });

  it('has configs and splits', async () => {
    await using validation = await open(['--dataset', 'some/shards', '--split', 'validation']);
    await validation.ready();
    expect(await validation.documents(0)).toEqual(['held']);
    await using other = await open([
      '--dataset',
      'some/shards',
      '--config-name',
      'other',
      '--text-column',
      'body',
    ]);
    expect(await other.ready()).toMatchObject({ config_name: 'other', files: ['other/a.parquet'] });
  });

  it('may be JSON lines without a card', async () => {
    await using session = await open(['--dataset', 'some/lines']);
    expect(await session.ready()).toMatchObject({ files: ['train.jsonl'], row_groups: false });
    expect(await session.documents(0)).toEqual(documents);
  });

  it('is read at the revision that was asked for', async () => {
    const commit = hub.commit('some/shards');
    await using session = await open(['--dataset', 'some/shards', '--revision', commit]);
    expect((await session.ready()).revision).toBe(commit);
  });

  it('that is private is read with the right token', async () => {
    await using session = await open(['--dataset', 'some/private'], { HF_TOKEN: 'hf_right' });
    await session.ready();
    expect(await session.documents(0)).toEqual(['secret']);
  });

  it('opens no more files than were asked for', async () => {
    const before = hub.requests.length;
    await using session = await open(['--dataset', 'some/shards']);
    await session.ready();
    await session.documents(0);
    const files = hub.requests.slice(before).filter(({ file }) => file?.endsWith('.parquet'));
    expect(new Set(files.map(({ file }) => file))).toEqual(new Set(['data/a.parquet']));
  });

  it('reports a request that failed, and answers it and those behind it when told to try again', async () => {
    await using session = await open(['--dataset', 'some/shards']);
    await session.ready();
    let faults = 0;
    const headers = { 'Retry-After': '7' };
    hub.script = ({ file }) => (file === 'data/a.parquet' && faults++ < 2 ? { status: 503, headers } : null);
    const first = session.send({ op: 'read', file: 0, group: 0, row: 5, rows: 15 });
    const second = session.send({ op: 'read', file: 1, group: 0, row: 0, rows: 20 });
    for (const attempt of [1, 2]) {
      expect((await session.next('batch'))?.json, `attempt ${attempt}`).toMatchObject({
        id: first,
        code: 'SOURCE_UNAVAILABLE',
        cause: '503 from the hub',
        retryable: true,
        retry_after: 7,
        attempts: null,
        waits: true,
      });
      expect(faults).toBe(attempt);
      session.say({ op: 'retry', id: first });
    }
    const frames = [await session.next('batch'), await session.next('batch')] as Frame[];
    expect(frames.map(({ json }) => json.id)).toEqual([first, second]);
    expect(frames.flatMap(documentsOf)).toEqual([...documents.slice(5, 20), ...documents.slice(40, 60)]);
  });

  it.runIf(hasSharedData)('of 26,033 documents arrives complete', async () => {
    await using session = await open(['--dataset', 'HuggingFaceFW/fineweb']);
    const ready = await session.ready();
    let count = 0;
    for (const file of ready.files.keys()) count += (await session.documents(file)).length;
    expect(count).toBe(26_033);
  });
});

describe('what is wrong is named:', () => {
  it('no such dataset', async () => {
    const complaint = await complaintOf(['--dataset', 'no/such']);
    expect(complaint).toMatchObject({ code: 'DATASET_NOT_FOUND', retryable: false });
    expect(complaint.message).toContain('no/such');
    expect(complaint.hint).toContain('HF_TOKEN');
  });

  it('no such revision', async () => {
    const complaint = await complaintOf(['--dataset', 'some/shards', '--revision', 'v9']);
    expect(complaint).toMatchObject({ code: 'DATASET_NOT_FOUND' });
    expect(complaint.message).toContain('revision');
  });

  it('no such config, with those that exist', async () => {
    const complaint = await complaintOf(['--dataset', 'some/shards', '--config-name', 'nope']);
    expect(complaint.code).toBe('DATASET_NOT_FOUND');
    expect(complaint.message).toContain('default, other');
  });

  it('no such split, with those that exist', async () => {
    const complaint = await complaintOf(['--dataset', 'some/shards', '--split', 'test']);
    expect(complaint.code).toBe('SPLIT_NOT_FOUND');
    expect(complaint.message).toContain('train, validation');
  });

  it('no such column, with those that exist', async () => {
    const complaint = await complaintOf(['--dataset', 'some/shards', '--text-column', 'body']);
    expect(complaint.code).toBe('COLUMN_NOT_FOUND');
    expect(complaint.message).toContain('number, text');
  });

  it('a dataset without files, and one without rows', async () => {
    expect((await complaintOf(['--dataset', 'some/bare'])).code).toBe('DATASET_EMPTY');
    expect((await complaintOf(['--dataset', 'some/empty'])).code).toBe('DATASET_EMPTY');
  });

  it('a token that is missing or wrong', async () => {
    const missing = await complaintOf(['--dataset', 'some/gated']);
    expect(missing.code).toBe('AUTH_REQUIRED');
    expect(missing.hint).toContain('HF_TOKEN');
    const wrong = await complaintOf(['--dataset', 'some/private'], { HF_TOKEN: 'hf_wrong' });
    expect(wrong.code).toBe('AUTH_REQUIRED');
    expect(wrong.hint).toContain('HF_TOKEN');
  });

  it('no network: at once, not after minutes', async () => {
    const started = performance.now();
    const complaint = await complaintOf(['--dataset', 'some/shards'], { HF_ENDPOINT: 'http://127.0.0.1:9' });
    expect(complaint).toMatchObject({ code: 'SOURCE_UNAVAILABLE', retryable: true });
    expect(complaint.hint).toMatch(/network.*HF_ENDPOINT.*--dataset sample/);
    expect(performance.now() - started).toBeLessThan(10_000);
  });
});
