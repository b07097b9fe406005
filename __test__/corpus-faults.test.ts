/** What a hub can do wrong, against the real `datasets` library: the stream is exact, or the failure says what it is. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  type HuggingFaceCorpusOptions,
  HuggingFaceStreamingCorpus,
  type OpenCorpus,
  type SourceEvent,
} from '../src/corpus/index.js';
import { type Fault, type FaultScript, quickFaults, randomFaults } from './support/hub-faults.js';
import { LocalHub } from './support/hub.js';
import { python, writeParquet } from './support/python.js';

// More files than the streamer keeps open, so that every pass asks the hub for all of them.
const files = 12;
const rowsOfFile = 40;
// One of them is large, so that no range of it is the whole.
const large = 5;
const faulty = 'data/05.parquet';
// The same in every run, and with them the commit: random faults depend on the paths.
const documents = Array.from({ length: files * rowsOfFile }, (_, i) => {
  const text = Math.floor(i / rowsOfFile) === large ? incompressible(i) : 'é\n"'.repeat(i % 9);
  return `document ${i} ${text}`;
});
let folder: string;
let hub: LocalHub;
let corpus: HuggingFaceStreamingCorpus;
let opened: OpenCorpus;
let events: SourceEvent[] = [];
let onEvent: (event: SourceEvent) => void = () => {};

function incompressible(seed: number): string {
  return createHash('shake256', { outputLength: 100_000 }).update(String(seed)).digest('hex');
}

const open = ({ home = 'home', ...options }: HuggingFaceCorpusOptions & { home?: string } = {}) =>
  new HuggingFaceStreamingCorpus('some/set', {
    python,
    env: {
      ...process.env,
      HF_ENDPOINT: hub.url,
      HF_HOME: join(folder, home),
      HF_TOKEN: undefined,
      // A stall is known after this many seconds.
      HF_HUB_DOWNLOAD_TIMEOUT: '2',
    },
    onEvent: (event) => {
      events.push(event);
      onEvent(event);
    },
    ...options,
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-faults-'));
  await writeParquet(
    ...Array.from({ length: files }, (_, file) => ({
      path: join(folder, 'set/data', `${String(file).padStart(2, '0')}.parquet`),
      documents: documents.slice(file * rowsOfFile, (file + 1) * rowsOfFile),
      groupRows: 10,
      compression: 'none' as const,
    })),
  );
  hub = await LocalHub.start({ 'some/set': join(folder, 'set') });
  corpus = open();
  opened = await corpus.open();
});
afterEach(() => {
  hub.script = null;
  events = [];
  onEvent = () => {};
});
afterAll(async () => {
  opened?.release();
  await corpus?.close();
  await hub?.close();
  await rm(folder, { recursive: true, force: true });
});

async function read(from: HuggingFaceStreamingCorpus): Promise<string[]> {
  const found: string[] = [];
  for await (const text of from.stream()) found.push(text);
  return found;
}

const retries = () => events.filter((event) => event.type === 'retry');

/** Answers the first `times` ranges of one file with a fault, all else by `others`; returns how often it did. */
function fail(fault: Fault, times: number, others: FaultScript = () => null): () => number {
  let count = 0;
  hub.script = (request) => {
    const { file, range } = request;
    if (file !== faulty || range === null || count >= times) return others(request);
    // What is to be damaged has to be in the range.
    const [start = 0, end = 0] = range.match(/\d+/g)?.map(Number) ?? [];
    if (fault.corrupt?.every((offset) => offset < start || offset > end)) return others(request);
    count++;
    return fault;
  };
  return () => count;
}

describe('the stream is exact over', () => {
  it.each<[string, Fault, number, string]>([
    ['500', { status: 500 }, 2, '500 from the hub'],
    ['503, three times', { status: 503 }, 3, '503 from the hub'],
    ['504, six times, which takes two processes', { status: 504 }, 6, '504 from the hub'],
    ['408', { status: 408 }, 1, '408 from the hub'],
    ['404 of a file that is there', { status: 404 }, 1, '404 from the hub'],
    ['a body that is cut short', { truncate: 700 }, 2, 'the answer was cut short'],
    ['a body that does not begin', { truncate: 0 }, 1, 'the answer was cut short'],
    ['a connection that is reset', { reset: true }, 2, 'connection lost'],
    ['a stall', { stall: 700 }, 1, 'read timed out'],
    ['a stall before the first byte', { stall: 0 }, 1, 'read timed out'],
    ['an answer that ignores the range', { ignoreRange: true }, 2, 'the hub ignores ranges'],
    ['a link into the storage that has expired', { redirect: 0 }, 2, "403 from the hub's storage"],
    ['a page that was damaged on its way', { corrupt: [2_000_000] }, 1, 'damaged data'],
  ])('%s', async (_, fault, times, cause) => {
    const failed = fail(fault, times);
    expect(await read(corpus)).toEqual(documents);
    expect(failed()).toBe(times);
    expect(retries().map((event) => event.cause)).toEqual(Array.from({ length: times }, () => cause));
    expect(events.filter(({ type }) => type === 'recovered')).toHaveLength(1);
  });

  it('a redirect to a link that works, without a retry', async () => {
    const redirected = fail({ redirect: 1 }, Number.POSITIVE_INFINITY);
    expect(await read(corpus)).toEqual(documents);
    expect(redirected()).toBeGreaterThan(0);
    expect(retries()).toEqual([]);
  });

  it.each<[string, Record<string, string>]>([
    ['Retry-After', { 'Retry-After': '2' }],
    ['the rate limit', { ratelimit: '"resolvers";r=0;t=2', 'ratelimit-policy': '"resolvers";q=3000;w=300' }],
  ])('429, not asking again before %s allows it', async (_, headers) => {
    fail({ status: 429, headers }, 1);
    let began = 0;
    let back = 0;
    onEvent = ({ type }) => {
      if (type === 'retry') began = performance.now();
      if (type === 'recovered') back = performance.now();
    };
    expect(await read(corpus)).toEqual(documents);
    expect(retries()).toMatchObject([{ cause: '429 from the hub', delay: 2 }]);
    expect(back - began).toBeGreaterThan(1990);
  });

  it('a hub that refuses connections for a while', async () => {
    onEvent = (event) => {
      if (event.type === 'retry' && event.attempt === 2) void hub.up();
    };
    const reading = corpus.stream();
    const found = [(await reading.next()).value];
    await hub.down();
    for await (const text of reading) found.push(text);
    expect(found).toEqual(documents);
    expect(retries().at(-1)).toMatchObject({ attempt: 2, cause: 'connection refused' });
  });

  it.each([11, 22])('random faults (seed %i), damage among them', async (seed) => {
    // A new process asks for several things in a row before it is ready, at this rate often in vain: the doubled delays
    // of seven attempts would be most of a minute.
    await using hurried = open({ retryDelay: 0.01 });
    const { release } = await hurried.open();
    const damaged = fail({ corrupt: [2_000_000] }, 1, randomFaults(seed, 0.25, [...quickFaults, 'damage']));
    expect(await read(hurried)).toEqual(documents);
    release();
    expect(damaged()).toBe(1);
    expect(retries().length).toBeGreaterThan(0);
  });
});

describe('random faults', () => {
  it('depend on the seed and the request alone, and come at their rate', () => {
    const request = (path: number, before: number) => ({
      method: 'GET',
      path: `/file-${path}`,
      file: `file-${path}`,
      range: 'bytes=0-99',
      authorization: null,
      before,
    });
    const places = Array.from({ length: 2000 }, (_, i) => [i % 40, Math.floor(i / 40)] as const);
    const draw = (seed: number, order = places) => {
      const script = randomFaults(seed, 0.2);
      const drawn = order.map((place) => [place, script(request(...place)) ?? null] as const);
      return new Map(drawn.map(([place, fault]) => [String(place), JSON.stringify(fault)]));
    };
    const faults = draw(1);
    expect(new Map([...draw(1, places.toReversed())].toReversed())).toEqual(faults);
    expect(draw(2)).not.toEqual(faults);
    const rate = [...faults.values()].filter((fault) => fault !== 'null').length / places.length;
    expect(Math.abs(rate - 0.2)).toBeLessThan(0.03);
  });
});

describe('opening a dataset', () => {
  it('is tried again when the hub is not there', async () => {
    await hub.down();
    onEvent = (event) => {
      if (event.type === 'retry' && event.attempt === 2) void hub.up();
    };
    await using late = open();
    expect(await read(late)).toEqual(documents);
    expect(retries()).toMatchObject([
      { attempt: 1, cause: 'connection refused' },
      { attempt: 2, cause: 'connection refused' },
    ]);
  });

  it('is tried again whatever it fails by', async () => {
    const faults: [RegExp, Fault, string][] = [
      [/\/revision\//, { status: 500 }, '500 from the hub'],
      [/\/tree\//, { status: 502 }, '502 from the hub'],
      [/\/tree\//, { truncate: 10 }, 'the answer was cut short'],
      [/\/tree\//, { stall: 10 }, 'read timed out'],
    ];
    // A request for nothing but headers is asked twice by the library.
    faults.unshift([/README/, { status: 503 }, '503 from the hub'], [/README/, { status: 503 }, '']);
    const causes = faults.map(([, , cause]) => cause).filter((cause) => cause !== '');
    hub.script = ({ path }) => {
      const next = faults[0];
      if (!next?.[0].test(path)) return null;
      faults.shift();
      return next[1];
    };
    // Nothing is remembered there of what the others were told.
    await using late = open({ home: 'empty' });
    expect(await read(late)).toEqual(documents);
    expect(retries().map((event) => event.cause)).toEqual(causes);
  });

  it('meets the budget, too', async () => {
    hub.script = () => ({ status: 503 });
    await using late = open({ retryBudget: 1 });
    await expect(read(late)).rejects.toMatchObject({
      code: 'SOURCE_UNAVAILABLE',
      exitCode: 4,
      message: expect.stringMatching(/the hub answered 503; given up after \d+ more attempts? in \d/),
      hint: expect.stringContaining('--retry-budget'),
    });
  });
});

describe('at once comes', () => {
  it.each([401, 403])('AUTH_REQUIRED for %i, saying which token is missing', async (status) => {
    await using refused = open();
    const { release } = await refused.open();
    hub.script = ({ file, range }) => (file === faulty && range ? { status } : null);
    await expect(read(refused)).rejects.toMatchObject({
      code: 'AUTH_REQUIRED',
      message: expect.stringMatching(
        new RegExp(`${faulty}: the hub answered ${status}; no token was sent: HF_TOKEN is not set`),
      ),
    });
    expect(retries()).toEqual([]);
    release();
  });
});
