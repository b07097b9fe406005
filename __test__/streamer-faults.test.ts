/** A source that fails for long, for good, or where nobody looks: how long it is asked, and what is said in the end. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SourceEvent } from '../src/corpus/notices.js';
import { Streamer, type StreamerOptions } from '../src/corpus/streamer.js';
import { LocalHub } from './support/hub.js';
import { PlainLink } from './support/link.js';
import { python, runPython, writeParquet } from './support/python.js';

const documents = Array.from({ length: 60 }, (_, i) => `document ${i} ${String(i).repeat(50)}`);
let folder: string;
let hub: LocalHub;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-long-faults-'));
  await writeParquet({ path: join(folder, 'set/train.parquet'), documents, groupRows: 20 });
  await mkdir(join(folder, 'lines'));
  const lines = documents.map((text) => `${JSON.stringify({ text })}\n`).join('');
  await writeFile(join(folder, 'lines/train.jsonl.gz'), gzipSync(lines));
  hub = await LocalHub.start({ 'some/set': join(folder, 'set'), 'some/lines': join(folder, 'lines') });
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

async function supervise(
  options: Partial<StreamerOptions> = {},
  env: Record<string, string> = {},
  dataset = 'some/set',
) {
  hub.script = null;
  const link = new PlainLink();
  const events: SourceEvent[] = [];
  const streamer = new Streamer(link, {
    source: {
      dataset,
      configName: null,
      split: 'train',
      textColumn: 'text',
      textTemplate: null,
      revision: null,
      batchSize: 10,
    },
    python,
    env: { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home'), ...env },
    loadTimeout: 60_000,
    retryDelay: 5,
    onEvent: (event) => events.push(event),
    ...options,
  });
  await streamer.ready();
  events.length = 0;
  const readAll = async () => {
    const parts = await Promise.all([0, 1, 2].map((group) => link.read(0, group, 20)));
    return parts.flat();
  };
  return { events, link, readAll, streamer };
}

describe('a hub that answers 503', () => {
  it('for five minutes is waited for, at a hundredth of the time', async () => {
    const { events, readAll, streamer } = await supervise({ retryDelay: 5, retryBudget: 18 });
    let until: number | null = null;
    hub.script = () => {
      until ??= performance.now() + 3000;
      return performance.now() < until ? { status: 503 } : null;
    };
    expect(await readAll()).toEqual(documents);
    const retries = events.filter((event) => event.type === 'retry');
    expect(retries.length).toBeGreaterThan(4);
    expect(retries.every(({ cause }) => cause === '503 from the hub')).toBe(true);
    const recovered = events.filter((event) => event.type === 'recovered');
    expect(recovered).toHaveLength(1);
    expect(recovered[0]?.waited).toBeGreaterThanOrEqual(3);
    await streamer.close();
  });

  it('for good is given up when the budget is spent, saying what was tried', async () => {
    const { readAll, streamer } = await supervise({ retryBudget: 0.2 });
    hub.script = () => ({ status: 503 });
    await expect(readAll()).rejects.toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringMatching(
        /some\/set(: train\.parquet)?: the hub answered 503; given up after \d+ more attempts? in/,
      ),
      hint: expect.stringContaining('the same command goes on later'),
    });
    await streamer.close();
  });

  it('and asks to wait for longer than the budget is given up at once', async () => {
    const { events, readAll, streamer } = await supervise({ retryBudget: 60 });
    hub.script = () => ({ status: 429, headers: { 'Retry-After': '300' } });
    await expect(readAll()).rejects.toMatchObject({ message: expect.stringContaining('asks to wait 5 min') });
    expect(events.filter(({ type }) => type === 'retry')).toEqual([]);
    await streamer.close();
  });
});

describe('what does not come back', () => {
  it('a file that is gone is asked for six times more', async () => {
    const { events, readAll, streamer } = await supervise();
    hub.script = ({ file }) => (file === 'train.parquet' ? { status: 404 } : null);
    await expect(readAll()).rejects.toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      message: expect.stringMatching(/train\.parquet: the hub answered 404 \(gone\); given up after 6 more/),
    });
    expect(events.filter(({ type }) => type === 'retry')).toHaveLength(6);
    await streamer.close();
  });

  it('a damaged page is fetched three times more, then its file, row group and bytes are named', async () => {
    const { events, readAll, streamer } = await supervise();
    const place = JSON.parse(
      await runPython(
        `import json, sys, pyarrow.parquet as pq
chunk = pq.ParquetFile(json.load(sys.stdin)).metadata.row_group(1).column(1)
start = chunk.dictionary_page_offset or chunk.data_page_offset
print(json.dumps([start, start + chunk.total_compressed_size - 1]))`,
        join(folder, 'set/train.parquet'),
      ),
    ) as [number, number];
    hub.script = ({ range }) => (range ? { corrupt: [place[1] - 5] } : null);
    await expect(readAll()).rejects.toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining(
        `train.parquet: row group 1, bytes ${place[0]} to ${place[1]} (text) cannot be read`,
      ),
    });
    expect(events.filter(({ type }) => type === 'retry')).toMatchObject(
      [1, 2, 3].map((attempt) => ({ attempt, cause: 'damaged data' })),
    );
    await streamer.close();
  });

  it('damage in compressed lines is located, too; on its way only it is read anew', async () => {
    const size = (await readFile(join(folder, 'lines/train.jsonl.gz'))).length;
    const once = await supervise({}, {}, 'some/lines');
    let damaged = 0;
    hub.script = ({ range }) => (range && damaged++ === 0 ? { corrupt: [size - 6] } : null);
    expect(await once.link.read(0, 0, 60)).toEqual(documents);
    expect(once.events.filter(({ type }) => type === 'retry')).toMatchObject([{ cause: 'damaged data' }]);
    await once.streamer.close();

    const always = await supervise({}, {}, 'some/lines');
    hub.script = ({ range }) => (range ? { corrupt: [size - 6] } : null);
    await expect(always.link.read(0, 0, 60)).rejects.toMatchObject({
      code: 'SOURCE_CORRUPT',
      message: expect.stringContaining(
        `train.jsonl.gz cannot be read after row 0, at or before byte ${size}`,
      ),
    });
    await always.streamer.close();
  });
});

describe('a streamer that lives and does nothing', () => {
  it('is taken for stuck, and another goes on', async () => {
    const options = { stuck: 500, heartbeat: 0.05 };
    // Its library would wait for long.
    const { events, readAll, streamer } = await supervise(options, { HF_HUB_DOWNLOAD_TIMEOUT: '600' });
    const first = streamer.pid;
    let stalled = 0;
    hub.script = ({ range }) => (range && stalled++ === 0 ? { stall: 10 } : null);
    expect(await readAll()).toEqual(documents);
    expect(events.find(({ type }) => type === 'retry')).toMatchObject({
      cause: expect.stringMatching(/^nothing came for \d+ s$/),
    });
    expect(streamer.pid).not.toBe(first);
    await streamer.close();
  });

  it('is left alone as long as nothing is asked of it', async () => {
    const { events, link, readAll, streamer } = await supervise({ stuck: 1, heartbeat: 0.02 });
    let beats = 0;
    const push = link.push.bind(link);
    await new Promise<void>((resolve) => {
      link.push = (chunk) => {
        if (++beats === 10) resolve();
        return push(chunk);
      };
    });
    expect(events).toEqual([]);
    await streamer.close();
    await expect(readAll()).rejects.toMatchObject({ code: 'ABORTED' });
  });
});
