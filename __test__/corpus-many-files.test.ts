/** A dataset of 20,000 files: found without opening them, hardly later than by `datasets` alone. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus } from '../src/corpus/index.js';
import { HubProcess } from './support/hub-start.js';
import { python, repository, writeParquet } from './support/python.js';

const files = 20_000;
let folder: string;
let hub: HubProcess;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-many-'));
  await writeParquet({ path: join(folder, 'data/original.parquet'), documents: ['one', 'two'] });
  const copies = Array.from({ length: files - 1 }, (_, i) => [
    `data/${String(i).padStart(5, '0')}.parquet`,
    'data/original.parquet',
  ]);
  hub = await HubProcess.start({
    repositories: { 'many/files': { folder, copies: Object.fromEntries(copies) as Record<string, string> } },
  });
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

const environment = (home: string) => ({
  ...process.env,
  HF_ENDPOINT: hub.url,
  HF_HOME: join(folder, home),
});
const requests = async () => ((await hub.tell({ report: true })) as { requests: number }).requests;

describe('20,000 files', () => {
  it('are listed page by page and not opened; the first row comes at most 3 s after that of `datasets`', async () => {
    const script = join(repository, '__test__/support/first_row.py');
    const { stdout } = await promisify(execFile)(python, [script, 'many/files'], {
      env: environment('theirs'),
    });
    const before = await requests();
    const began = performance.now();
    await using corpus = new HuggingFaceStreamingCorpus('many/files', { python, env: environment('ours') });
    const { release } = await corpus.open();
    const { value } = await corpus.stream().next();
    const ours = (performance.now() - began) / 1000;
    expect(value).toBe('one');
    // Twenty pages, and the few requests that a dataset of one file takes.
    expect((await requests()) - before).toBeLessThan(60);
    expect(ours, `seconds to the first row; \`datasets\` took ${stdout}`).toBeLessThan(Number(stdout) + 3);
    release();
  });
});
