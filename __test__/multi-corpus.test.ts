/** MultiCorpus with the real `datasets` library: text, batches, tokenizers and errors, against a slow mixture. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  HuggingFaceStreamingCorpus,
  type Member,
  MultiCorpus,
  type MultiCorpusOptions,
  type OnExhausted,
  ProcessStreamingCorpus,
  type StreamingCorpus,
} from '../src/corpus/index.js';
import { type LoaderBatch, StreamingTextDataLoader } from '../src/data/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { LocalHub } from './support/hub.js';
import { mixture } from './support/mixture.js';
import { isBuilt } from './support/program.js';
import { python, writeParquet } from './support/python.js';

const names = ['made/prose', 'made/code', 'made/notes'];
const counts = [310, 120, 40];
const texts = counts.map((count, s) =>
  Array.from({ length: count }, (_, i) =>
    i % 13 === 5 ? null : `${names[s]} ${i}: ${'wörd '.repeat((i * (s + 3)) % 29)}`,
  ),
);
const documents = texts.map((rows) => rows.filter((text) => text !== null));
const bytes = (text: string) => Buffer.byteLength(text);

let folder: string;
let hub: LocalHub;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-multi-'));
  const half = (rows: (string | null)[], part: number) =>
    part === 0 ? rows.slice(0, rows.length / 2) : rows.slice(rows.length / 2);
  await writeParquet(
    ...texts.flatMap((rows, s) =>
      [0, 1].map((part) => ({
        path: join(folder, `${s}`, `part-${part}.parquet`),
        documents: half(rows, part),
        groupRows: 7,
      })),
    ),
    { path: join(folder, 'empty', 'part-0.parquet'), documents: ['', null, ''] },
  );
  hub = await LocalHub.start({
    ...Object.fromEntries(names.map((name, s) => [name, join(folder, String(s))])),
    'made/empty': join(folder, 'empty'),
  });
});
afterAll(async () => {
  await hub.close();
  await rm(folder, { recursive: true, force: true });
});

function single(name: string): HuggingFaceStreamingCorpus {
  const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
  return new HuggingFaceStreamingCorpus(name, { python, env, batchSize: 50 });
}

const weights = [5, 3, 1];
function mixed(policies: OnExhausted[], options: MultiCorpusOptions = {}): MultiCorpus {
  const members = policies.map((onExhausted, s) => ({
    corpus: single(names[s] ?? ''),
    weight: weights[s],
    onExhausted,
  }));
  return new MultiCorpus(members, options);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe.skipIf(!isBuilt)('the text of a mixture', () => {
  it.each<[OnExhausted[], MultiCorpusOptions]>([
    [['stop', 'stop', 'stop'], {}],
    [['drop', 'drop', 'drop'], {}],
    [['drop', 'repeat', 'stop'], { epochs: 2 }],
    [['repeat', 'repeat', 'repeat'], { maxSamples: 777 }],
  ])('is mixed by bytes: %j %j', async (policies, options) => {
    await using corpus = mixed(policies, { batchSize: 64, ...options });
    const sources = documents.map((rows, s) => ({
      documents: Array.from(
        { length: policies[s] === 'repeat' ? 30 : (options.epochs ?? 1) },
        () => rows,
      ).flat(),
      weight: weights[s] ?? 1,
      onExhausted: policies[s] ?? 'stop',
    }));
    const expected = mixture(sources, bytes, options.maxSamples ?? undefined).map(({ document }) => document);
    expect(await collect(corpus.stream())).toEqual(expected);
    const batches = await collect(corpus.batches());
    expect(batches.flat()).toEqual(expected);
    expect(batches.slice(0, -1).every(({ length }) => length === 64)).toBe(true);
  });

  it('has equal shares where no weight is given, and plain corpora as members', async () => {
    await using corpus = new MultiCorpus([single('made/prose'), { corpus: single('made/code') }]);
    const sources = documents
      .slice(0, 2)
      .map((rows) => ({ documents: rows, weight: 1, onExhausted: 'stop' as const }));
    expect(await collect(corpus.stream())).toEqual(mixture(sources, bytes).map(({ document }) => document));
  });

  it('trains the tokenizer that its documents train', async () => {
    await using corpus = mixed(['drop', 'repeat', 'drop']);
    const options = { vocabSize: 330, maxSamples: 400 };
    const fromCorpus = await Tokenizer.train(corpus, options);
    const fromTexts = await Tokenizer.train(corpus.stream(), options);
    expect(fromCorpus.native.digest()).toBe(fromTexts.native.digest());
    await expect(Tokenizer.train(corpus, { vocabSize: 330 })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  });
});

describe.skipIf(!isBuilt)('a mixture that fails', () => {
  const failing = (member: StreamingCorpus) => new MultiCorpus([single('made/prose'), member]);

  it('names the source that cannot be opened', async () => {
    await using corpus = failing(single('made/nothing'));
    await expect(collect(corpus.stream())).rejects.toMatchObject({
      code: 'DATASET_NOT_FOUND',
      message: expect.stringMatching(/^sources\[1\] \(made\/nothing\): /),
    });
  });

  it('names the source that is empty', async () => {
    await using corpus = failing(single('made/empty'));
    await expect(collect(corpus.stream())).rejects.toMatchObject({
      code: 'DATASET_EMPTY',
      message: 'sources[1] (made/empty) has no document with text',
    });
  });

  it('names the source that fails in the middle', async () => {
    const script = join(folder, 'breaks.py');
    await writeFile(script, `print('{"batch": ["one document"]}')\nprint('{"batch": 7}', flush=True)\n`);
    await using corpus = failing(new ProcessStreamingCorpus([python, script]));
    await expect(collect(corpus.stream())).rejects.toMatchObject({
      code: 'PROTOCOL_VIOLATION',
      message: expect.stringContaining(`sources[1] (${python} ${script}): `),
    });
  });

  it('closes its members when it is closed', async () => {
    const [a, b] = [single('made/prose'), single('made/code')];
    const corpus = new MultiCorpus([a, b]);
    for await (const text of corpus.stream()) {
      expect(text).toBe(documents[0]?.[0]);
      break;
    }
    await corpus.close();
    for (const member of [a, b, corpus]) {
      await expect(collect(member.stream())).rejects.toMatchObject({ code: 'USAGE' });
    }
  });
});

describe('a mixture that makes no sense', () => {
  const corpus = new HuggingFaceStreamingCorpus('made/prose');
  it.each<[string, (StreamingCorpus | Member)[], RegExp]>([
    ['nothing', [], /a MultiCorpus of nothing/],
    ['a weight of 0', [corpus, { corpus, weight: 0 }], /the weight of sources\[1\] is 0/],
    ['a weight that is no number', [{ corpus, weight: Number.NaN }], /the weight of sources\[0\] is NaN/],
    ['a policy', [{ corpus, onExhausted: 'loop' as OnExhausted }], /onExhausted of sources\[0\] is loop/],
    ['a mixture in it', [corpus, new MultiCorpus([corpus])], /sources\[1\] is a mixture itself/],
    [
      'a limit of a member',
      [new HuggingFaceStreamingCorpus('a/b', { maxSamples: 10 })],
      /sources\[0\] has maxSamples 10/,
    ],
    ['passes of a member', [new HuggingFaceStreamingCorpus('a/b', { epochs: null })], /epochs without limit/],
    ['what is no corpus', [{ corpus: null as unknown as StreamingCorpus }], /sources\[0\] is no corpus/],
  ])('is refused: %s', (_, members, message) => {
    const make = () => new MultiCorpus(members);
    expect(make).toThrow(expect.objectContaining({ code: 'USAGE', message: expect.stringMatching(message) }));
  });
});

describe.skipIf(!isBuilt)('batches of a mixture', () => {
  const shape = { batchSize: 4, sequenceLength: 32, shuffleBufferSize: 30, seed: 3 };
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    await using corpus = single('made/prose');
    tokenizer = await Tokenizer.train(corpus, { vocabSize: 300 });
  });

  interface Batches {
    documents: string[];
    last: { hash: string; state: string } | null;
    states: string[];
  }

  /** The documents of a stream of batches, as their ids. */
  async function read(
    corpus: StreamingCorpus,
    { stopAfter = Number.POSITIVE_INFINITY, state }: { stopAfter?: number; state?: string | undefined } = {},
  ): Promise<Batches> {
    const loader = new StreamingTextDataLoader(corpus, tokenizer, { ...shape, state });
    const ids: number[] = [];
    const found: Batches = { documents: [], last: null, states: [] };
    for await (const batch of loader) {
      if (ids.length === 0) ids.push(batch.inputs[0] as number);
      ids.push(...batch.targets.subarray(0, batch.counted));
      found.states.push(batch.state);
      found.last = { hash: batch.hash, state: batch.state };
      if (found.states.length === stopAfter) break;
    }
    const [end] = tokenizer.encode('<|endoftext|>');
    let start = 0;
    for (let at = ids.indexOf(end as number); at >= 0; at = ids.indexOf(end as number, start)) {
      found.documents.push(ids.slice(start, at + 1).join(' '));
      start = at + 1;
    }
    return found;
  }

  const policies: OnExhausted[] = ['stop', 'repeat', 'drop'];

  it('mixes the orders that the sources have alone, by tokens', async () => {
    const alone = await Promise.all(
      names.map(async (name, s) => {
        const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
        const epochs = policies[s] === 'repeat' ? 12 : 2;
        await using corpus = new HuggingFaceStreamingCorpus(name, { python, env, epochs });
        return (await read(corpus)).documents;
      }),
    );
    const sources = alone.map((rows, s) => ({
      documents: rows,
      weight: weights[s] ?? 1,
      onExhausted: policies[s] ?? 'stop',
    }));
    await using corpus = mixed(policies, { epochs: 2 });
    const expected = mixture(sources, (ids) => ids.split(' ').length).map(({ document }) => document);
    expect(expected.length).toBeGreaterThan(500);
    expect((await read(corpus)).documents).toEqual(expected);
  });

  it('go on from any of them with the rest, to the same hash', async () => {
    await using corpus = mixed(policies, { epochs: 2 });
    const whole = await read(corpus);
    for (const at of [1, 7, Math.floor(whole.states.length / 2), whole.states.length - 1]) {
      const rest = await read(corpus, { state: whole.states[at - 1] });
      expect([at + rest.states.length, rest.last]).toEqual([whole.states.length, whole.last]);
    }
  });

  it('are the same for every number of ranks, which may change in between', async () => {
    await using corpus = mixed(policies);
    const whole: LoaderBatch[] = [];
    for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, shape)) whole.push(batch);
    const middle = Math.floor(whole.length / 2);
    for (const [worldSize, state, expected] of [
      [2, undefined, whole],
      [4, whole[middle - 1]?.state, whole.slice(middle)],
    ] as const) {
      const ranks = await Promise.all(
        Array.from({ length: worldSize }, async (_, rank) => {
          const part: LoaderBatch[] = [];
          const options = { ...shape, rank, worldSize, state };
          for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, options)) part.push(batch);
          return part;
        }),
      );
      const joined = expected.map((_, n) => ({
        inputs: ranks.flatMap((part) => [...(part[n]?.inputs ?? [])]),
        targets: ranks.flatMap((part) => [...(part[n]?.targets ?? [])]),
        said: ranks.map((part) => [part[n]?.hash, part[n]?.state]),
      }));
      expect(ranks.map((part) => part.length)).toEqual(ranks.map(() => expected.length));
      expect(joined).toEqual(
        expected.map(({ inputs, targets, hash, state: after }) => ({
          inputs: [...inputs],
          targets: [...targets],
          said: ranks.map(() => [hash, after]),
        })),
      );
    }
  });

  it.each<[MultiCorpusOptions, MultiCorpusOptions]>([
    [{ maxSamples: 90 }, { maxSamples: 200 }],
    [{ epochs: 1 }, { epochs: 2 }],
  ])('count a limit that is raised exactly: %j, then %j', async (low, high) => {
    await using before = mixed(['stop', 'repeat', 'stop'], low);
    await using after = mixed(['stop', 'repeat', 'stop'], high);
    const whole = await read(after);
    const begun = await read(before);
    const rest = await read(after, { state: begun.last?.state });
    expect(rest.states.length).toBeGreaterThan(0);
    expect(rest.last?.hash).toBe(whole.last?.hash);
    const counts = (state: string | undefined) =>
      JSON.parse(state ?? '') as { tokens: number; documents: number; sources: { tokens: number }[] };
    const [last, expected] = [counts(rest.last?.state), counts(whole.last?.state)];
    expect([last.tokens, last.documents]).toEqual([expected.tokens, expected.documents]);
    expect(last.sources.map(({ tokens }) => tokens)).toEqual(expected.sources.map(({ tokens }) => tokens));
    expect(last.sources.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(last.tokens);
    if (high.maxSamples) expect(last.documents).toBe(high.maxSamples);
  });

  it('refuse the state of another mixture, naming key, old and new', async () => {
    await using corpus = mixed(policies);
    const { last } = await read(corpus, { stopAfter: 2 });
    const other = (change: Partial<Member>) =>
      new MultiCorpus(
        corpus.members.map((member, i) => (i === 1 ? Object.assign({}, member, change) : member)),
      );
    const failure = (changed: StreamingCorpus) =>
      read(changed, { state: last?.state }).catch((cause: unknown) => cause);
    expect(await failure(other({ weight: 4 }))).toMatchObject({
      code: 'RESUME_MISMATCH',
      message: expect.stringMatching(/^data\.sources\[1\]\.weight was 3 and is now 4/),
    });
    expect(await failure(other({ onExhausted: 'drop' }))).toMatchObject({
      message: expect.stringMatching(/^data\.sources\[1\]\.on_exhausted was "repeat" and is now "drop"/),
    });
    await using first = single('made/prose');
    expect(await failure(first)).toMatchObject({
      code: 'RESUME_MISMATCH',
      message: expect.stringMatching(/^the number of data\.sources was 3 and is now 1/),
    });
  });
});
