/** HuggingFaceStreamingCorpus as programs use it. */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  HuggingFaceStreamingCorpus,
  type HuggingFaceCorpusOptions,
  type SourceEvent,
} from '../src/corpus/index.js';
import { LocalHub } from './support/hub.js';
import { hasSharedData, python, runPython, sharedData, writeParquet } from './support/python.js';

const rows: (string | null)[] = Array.from({ length: 1234 }, (_, i) => {
  if (i % 100 === 7) return null;
  return i % 100 === 8 ? '' : `document ${i} ${'é\n"'.repeat(i % 40)}`;
});
const documents = rows.filter((text): text is string => text !== null && text !== '');
let folder: string;
let dataset: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-corpus-'));
  dataset = join(folder, 'set');
  await writeParquet(
    { path: join(dataset, 'b.parquet'), documents: rows.slice(700), groupRows: 100 },
    { path: join(dataset, 'a.parquet'), documents: rows.slice(0, 700), groupRows: 300 },
  );
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const corpusOf = (options: HuggingFaceCorpusOptions = {}, name = dataset) =>
  new HuggingFaceStreamingCorpus(name, { python, ...options });

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

describe('stream()', () => {
  it('yields every document in file order, without nulls and empty ones, and can be had again', async () => {
    await using corpus = corpusOf();
    expect(await collect(corpus.stream())).toEqual(documents);
    expect(await collect(corpus.stream())).toEqual(documents);
  });

  it.each([37, 1000])('does not depend on batchSize (%i)', async (batchSize) => {
    await using corpus = corpusOf({ batchSize });
    expect(await collect(corpus.stream())).toEqual(documents);
  });

  it('ends at maxSamples, counted over epochs', async () => {
    await using corpus = corpusOf({ maxSamples: 1500, epochs: 2 });
    expect(await collect(corpus.stream())).toEqual([...documents, ...documents].slice(0, 1500));
    await using unlimited = corpusOf({ maxSamples: 2500, epochs: Number.POSITIVE_INFINITY });
    expect((await collect(unlimited.stream())).length).toBe(2500);
    await using none = corpusOf({ maxSamples: 0 });
    expect(await collect(none.stream())).toEqual([]);
  });

  it('may be left early, and runs beside others', async () => {
    await using corpus = corpusOf();
    for await (const text of corpus.stream()) {
      expect(text).toBe(documents[0]);
      break;
    }
    const [a, b] = await Promise.all([collect(corpus.stream()), collect(corpus.stream())]);
    expect([a, b]).toEqual([documents, documents]);
  });

  it.each([
    ['parquet alone, which is read by group', []],
    ['parquet and lines, which are not', ['d.jsonl', 'e.jsonl']],
  ])('passes over empty files: %s', async (name, more) => {
    const mixed = join(folder, `empty-${name.length}`);
    await writeParquet(
      { path: join(mixed, 'a.parquet'), documents: [] },
      {
        path: join(mixed, 'b.parquet'),
        documents: rows.slice(0, 300),
        type: 'pa.large_string()',
        groupRows: 70,
      },
      { path: join(mixed, 'c.parquet'), documents: [null, '', null] },
      { path: join(mixed, 'f.parquet'), documents: rows.slice(300), groupRows: 1000 },
      { path: join(mixed, 'g.parquet'), documents: [] },
    );
    for (const file of more) await writeFile(join(mixed, file), '');
    await using corpus = corpusOf({ epochs: 2 }, mixed);
    expect(await collect(corpus.stream())).toEqual([...documents, ...documents]);
  });

  it('of JSON lines, text files and sample works alike', async () => {
    await writeFile(join(folder, 'x.jsonl'), rows.map((text) => `${JSON.stringify({ text })}\n`).join(''));
    await using lines = corpusOf({}, join(folder, 'x.jsonl'));
    expect(await collect(lines.stream())).toEqual(documents);
    await using sample = corpusOf({ maxSamples: 5 }, 'sample');
    expect((await collect(sample.stream())).length).toBe(5);
  });

  it.runIf(hasSharedData)(
    'gives the same text from a hub as from the directory, and as pyarrow',
    async () => {
      const webText = join(sharedData, 'web-text');
      await using hub = await LocalHub.start({ 'HuggingFaceFW/fineweb': webText });
      const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
      await using remote = corpusOf({ env, maxSamples: 7000 }, 'HuggingFaceFW/fineweb');
      await using local = corpusOf({ maxSamples: 7000 }, webText);
      const texts = await collect(remote.stream());
      expect(await collect(local.stream())).toEqual(texts);
      const script = `import glob, hashlib, json, sys, pyarrow.parquet as pq
files = sorted(glob.glob(json.load(sys.stdin) + "/data/*/*.parquet"))
texts = [t for f in files[:3] for t in pq.read_table(f, columns=["text"])["text"].to_pylist()][:7000]
print(json.dumps(texts))`;
      expect(JSON.parse(await runPython(script, webText))).toEqual(texts);
      expect((await remote.open()).description).toEqual({
        dataset: 'HuggingFaceFW/fineweb',
        config_name: 'default',
        split: 'train',
        revision: hub.commit('HuggingFaceFW/fineweb'),
        text_column: 'text',
        text_template: null,
        files: expect.stringMatching(/^[0-9a-f]{64}$/),
      });
    },
  );
});

describe('batches()', () => {
  it('yields arrays of batchSize, the last one shorter', async () => {
    await using corpus = corpusOf({ batchSize: 100 });
    const batches = await collect(corpus.batches());
    expect(batches.flat()).toEqual(documents);
    expect(batches.slice(0, -1).every(({ length }) => length === 100)).toBe(true);
    expect(batches.at(-1)?.length).toBe(documents.length % 100);
  });
});

describe('the process', () => {
  it('starts with the first use, serves every stream, and is gone after close', async () => {
    const events: SourceEvent[] = [];
    const corpus = corpusOf({ onEvent: (event) => events.push(event) });
    expect(events).toEqual([]);
    await collect(corpus.stream());
    await collect(corpus.batches());
    expect(events.filter(({ type }) => type === 'ready').length).toBe(1);
    await corpus.close();
    await corpus.close();
    await expect(collect(corpus.stream())).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('is started again when it is killed, and the stream goes on with the next document', async () => {
    const pids = join(folder, 'pids');
    const wrapper = join(folder, 'noting-python');
    await writeFile(wrapper, `#!/bin/sh\necho $$ >> '${pids}'\nexec '${python}' "$@"\n`);
    await chmod(wrapper, 0o755);
    const long = Array.from({ length: 4000 }, (_, i) => `document ${i} ${String(i).repeat(1000)}`);
    const path = join(folder, 'long.parquet');
    await writeParquet({ path, documents: long, groupRows: 100 });
    const events: SourceEvent[] = [];
    await using corpus = corpusOf({ python: wrapper, onEvent: (event) => events.push(event) }, path);
    const found: string[] = [];
    for await (const text of corpus.stream()) {
      found.push(text);
      if (found.length === 300 || found.length === 2000) {
        const pid = (await readFile(pids, 'utf8')).trim().split('\n').at(-1);
        process.kill(Number(pid), 'SIGKILL');
      }
    }
    expect(found).toEqual(long);
    expect(events.filter(({ type }) => type === 'restart').length).toBeGreaterThan(0);
  });

  it('ends with the signal, and every stream with ABORTED', async () => {
    const controller = new AbortController();
    await using corpus = corpusOf({ signal: controller.signal, epochs: null });
    let seen = 0;
    const reading = (async () => {
      for await (const _ of corpus.stream()) if (++seen === 100) controller.abort();
    })();
    await expect(reading).rejects.toMatchObject({ name: 'AbortedError', code: 'ABORTED', exitCode: 130 });
    await using late = corpusOf({ signal: controller.signal });
    await expect(collect(late.stream())).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

describe('bad input', () => {
  it('is refused by the constructor where that needs no dataset', () => {
    for (const options of [{ batchSize: 0 }, { maxSamples: -1 }, { epochs: 1.5 }, { loadTimeout: 0 }]) {
      expect(() => corpusOf(options)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    }
    expect(() => corpusOf({}, '')).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });

  it('is named by the stream otherwise', async () => {
    await using nowhere = corpusOf({}, join(folder, 'nowhere'));
    await expect(collect(nowhere.stream())).rejects.toMatchObject({ code: 'DATASET_NOT_FOUND' });
    await using split = corpusOf({ split: 'nope' });
    await expect(collect(split.stream())).rejects.toMatchObject({
      code: 'SPLIT_NOT_FOUND',
      message: expect.stringContaining('it has: train'),
    });
    await using column = corpusOf({ textColumn: 'nope' });
    await expect(collect(column.stream())).rejects.toMatchObject({
      code: 'COLUMN_NOT_FOUND',
      message: expect.stringContaining('number, text'),
    });
  });

  it('of only nulls and empty documents is an empty dataset', async () => {
    const path = join(folder, 'nothing.parquet');
    await writeParquet({ path, documents: [null, '', null] });
    await using corpus = corpusOf({}, path);
    await expect(collect(corpus.stream())).rejects.toMatchObject({ code: 'DATASET_EMPTY' });
  });

  it('of 50 MB in one document comes through', async () => {
    const path = join(folder, 'huge.txt');
    await writeFile(path, 'x'.repeat(50_000_000));
    await using corpus = corpusOf({}, path);
    expect((await collect(corpus.stream())).map(({ length }) => length)).toEqual([50_000_000]);
  });
});
