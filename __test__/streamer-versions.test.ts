/** The oldest versions of the libraries that are supported, and libraries without their private parts: the same stream. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalHub } from './support/hub.js';
import { python, repository, writeParquet } from './support/python.js';
import { Session } from './support/session.js';

/** With what they require, as far as that would not be newer than the oldest. */
const oldest = [
  'datasets==4.0.0',
  'huggingface_hub==0.34.4',
  'pyarrow==17.0.0',
  'fsspec==2025.3.0',
  'google-crc32c==1.9.0',
  'zstandard==0.25.0',
];
const documents = Array.from({ length: 90 }, (_, i) => `document ${i} ${'é\n"'.repeat(i % 9)}`);
let folder: string;
let hub: LocalHub;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-versions-'));
  await writeParquet(
    { path: join(folder, 'set/data/b.parquet'), documents: documents.slice(40), groupRows: 20 },
    {
      path: join(folder, 'set/data/a.parquet'),
      documents: documents.slice(0, 40),
      groupRows: 20,
      type: 'pa.large_string()',
    },
  );
  await mkdir(join(folder, 'lines'));
  const lines = documents.map((text) => `${JSON.stringify({ text })}\n`).join('');
  await writeFile(join(folder, 'lines/train.jsonl'), lines);
  hub = await LocalHub.start({ 'some/set': join(folder, 'set'), 'some/lines': join(folder, 'lines') });
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

/** A folder with the oldest packages, installed once a clone. */
async function oldestPackages(): Promise<string> {
  const cache = join(repository, 'node_modules', '.cache', 'candlewick');
  const digest = createHash('sha256').update(oldest.join(' ')).digest('hex').slice(0, 12);
  const target = join(cache, `oldest-${digest}`);
  if (existsSync(target)) return target;
  const temporary = `${target}.${process.pid}`;
  await mkdir(cache, { recursive: true });
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--target', temporary];
  await promisify(execFile)(python, [...pip, ...oldest]);
  await rename(temporary, target);
  return target;
}

/** A folder whose `sitecustomize` runs when Python starts. */
async function customized(script: string): Promise<string> {
  const path = await mkdtemp(join(folder, 'custom-'));
  await writeFile(join(path, 'sitecustomize.py'), script);
  return path;
}

async function open(dataset: string, PYTHONPATH: string): Promise<Session> {
  const HF_HOME = await mkdtemp(join(folder, 'home-'));
  return new Session(['--dataset', dataset], {
    HF_ENDPOINT: hub.url,
    HF_HOME,
    PYTHONPATH,
    HF_TOKEN: undefined,
    HF_HUB_DOWNLOAD_TIMEOUT: '2',
  });
}

async function checkStream(PYTHONPATH: string, stderr = ''): Promise<Record<string, string>> {
  await using session = await open('some/set', PYTHONPATH);
  const ready = await session.ready();
  expect(ready).toMatchObject({ files: ['data/a.parquet', 'data/b.parquet'], row_groups: true });
  expect([...(await session.documents(0)), ...(await session.documents(1))]).toEqual(documents);
  expect(session.stderr).toContain(stderr);
  await using lines = await open('some/lines', PYTHONPATH);
  await lines.ready();
  expect(await lines.documents(0)).toEqual(documents);
  return ready.versions;
}

async function checkFaults(PYTHONPATH: string): Promise<void> {
  const faults = [
    { status: 503, headers: { 'Retry-After': '9' } },
    { ignoreRange: true, truncate: 100 },
    { reset: true },
    { stall: 10 },
    { redirect: 0 },
    { status: 404 },
  ];
  await using session = await open('some/set', PYTHONPATH);
  await session.ready();
  hub.script = ({ file, range }) => (file === 'data/b.parquet' && range ? faults.shift() : null);
  const id = session.send({ op: 'read', file: 1, group: 0, row: 0, rows: 20 });
  const causes: unknown[] = [];
  for (;;) {
    const frame = await session.next('batch');
    if (frame?.kind !== 'error') {
      expect(frame?.json).toMatchObject({ id, rows: 20 });
      break;
    }
    expect(frame.json).toMatchObject({ id, waits: true, retryable: true });
    causes.push(frame.json.cause);
    session.say({ op: 'retry', id });
  }
  hub.script = null;
  expect(causes).toEqual([
    '503 from the hub',
    'the answer was cut short',
    'connection lost',
    'read timed out',
    "403 from the hub's storage",
    '404 from the hub',
  ]);
}

describe('the oldest supported versions', () => {
  it('give the same stream and report the same faults', { timeout: 600_000 }, async () => {
    const packages = await oldestPackages();
    expect(await checkStream(packages)).toMatchObject({
      datasets: '4.0.0',
      huggingface_hub: '0.34.4',
      pyarrow: '17.0.0',
    });
    await checkFaults(packages);
  });
});

describe('the pinned versions', () => {
  it('report these faults', async () => {
    await checkFaults('');
  });

  it('give the same stream without the private parts that are made use of', async () => {
    // Once `datasets` is there, all that is turned down or given limits is gone, as if it had other names.
    const path = await customized(`
import builtins, functools, sys
real = builtins.__import__
def hide():
    import huggingface_hub.utils._http as http
    import datasets.config as config, datasets.utils.file_utils as utils
    def hidden(function):
        return lambda *arguments, **named: function(*arguments, **named)
    http.http_backoff, http.http_stream_backoff = hidden(http.http_backoff), hidden(http.http_stream_backoff)
    del http.default_client_factory, utils.xopen
    for name in [name for name in vars(config) if name.startswith("STREAMING_")]:
        delattr(config, name)
    print("hidden", file=sys.stderr)
def watching(name, *arguments, **named):
    module = real(name, *arguments, **named)
    if name == "datasets" and hasattr(module, "load_dataset_builder") and builtins.__import__ is watching:
        builtins.__import__ = real
        hide()
    return module
builtins.__import__ = watching
`);
    await checkStream(path, 'hidden');
  });
});
