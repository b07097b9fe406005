/** Loaders of several ranks, and limits that are raised between the legs of a stream, over the real `datasets` library. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus } from '../src/corpus/index.js';
import { type LoaderBatch, type LoaderOptions, StreamingTextDataLoader } from '../src/data/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { isBuilt } from './support/program.js';
import { python, writeParquet } from './support/python.js';

const shape = { batchSize: 4, sequenceLength: 32, shuffleBufferSize: 50, seed: 3 };
const IGNORED = 0xffffffff;

interface Limits {
  maxSamples?: number;
  epochs?: number;
}

let folder: string;
let dataset: string;
let tokenizer: Tokenizer;

beforeAll(async () => {
  if (!isBuilt) return;
  folder = await mkdtemp(join(tmpdir(), 'candlewick-ranks-'));
  dataset = join(folder, 'small');
  await writeParquet(
    ...[90, 7, 0, 45].map((count, f) => ({
      path: join(dataset, `part-${f}.parquet`),
      documents: Array.from({ length: count }, (_, i) => `${f}/${i} ${'word '.repeat(i % 13)}`),
      groupRows: 4,
    })),
  );
  await using corpus = new HuggingFaceStreamingCorpus(dataset, { python });
  tokenizer = await Tokenizer.train(corpus, { vocabSize: 300 });
});
afterAll(async () => {
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

/** The batches of one rank, at most `most` of them. */
async function read(
  options: Partial<LoaderOptions> = {},
  most = Number.POSITIVE_INFINITY,
  limits: Limits = {},
): Promise<LoaderBatch[]> {
  await using corpus = new HuggingFaceStreamingCorpus(dataset, { python, ...limits });
  await using loader = new StreamingTextDataLoader(corpus, tokenizer, { ...shape, ...options });
  const batches: LoaderBatch[] = [];
  for await (const batch of loader) {
    batches.push(batch);
    if (batches.length >= most) break;
  }
  return batches;
}

/** Every rank of a world, one after the other. */
async function world(worldSize: number, state?: string, most?: number): Promise<LoaderBatch[][]> {
  const ranks: LoaderBatch[][] = [];
  for (let rank = 0; rank < worldSize; rank += 1) {
    ranks.push(await read({ rank, worldSize, state }, most));
  }
  return ranks;
}

/** Rows of all ranks together, batch by batch, and what every rank says of each. */
function union(ranks: readonly LoaderBatch[][]) {
  const [first = []] = ranks;
  return first.map((_, n) => {
    const parts = ranks.map((batches) => batches[n]);
    return {
      inputs: parts.flatMap((part) => [...(part?.inputs ?? [])]),
      targets: parts.flatMap((part) => [...(part?.targets ?? [])]),
      counted: parts.reduce((sum, part) => sum + (part?.counted ?? 0), 0),
      states: [...new Set(parts.map((part) => part?.state))],
      hashes: [...new Set(parts.map((part) => part?.hash))],
    };
  });
}

/** The counted targets, in order. */
function targets(batches: readonly LoaderBatch[]): number[] {
  return batches.flatMap((batch) => [...batch.targets].filter((target) => target !== IGNORED));
}

describe.skipIf(!isBuilt)('ranks', () => {
  it('of any world size see the same rows in the same order, and the same state and hash', async () => {
    const one = union(await world(1));
    expect(one.length).toBeGreaterThan(10);
    for (const worldSize of [2, 4]) {
      const ranks = await world(worldSize);
      expect(new Set(ranks.map((batches) => batches.length))).toEqual(new Set([one.length]));
      expect(ranks[0]?.[0]?.inputs.length).toBe((shape.batchSize / worldSize) * shape.sequenceLength);
      expect(union(ranks)).toEqual(one);
    }
  });

  it('may be of another number after a resume, from the state of any of them', async () => {
    const one = union(await world(1));
    const middle = Math.floor(one.length / 2);
    for (const [before, after] of [
      [1, 4],
      [4, 2],
      [2, 1],
    ] as const) {
      const begun = await world(before, undefined, middle);
      const state = begun[before - 1]?.at(-1)?.state;
      expect(union(begun)).toEqual(one.slice(0, middle));
      expect(union(await world(after, state))).toEqual(one.slice(middle));
    }
  });

  it('that do not divide the batch are refused', async () => {
    await expect(read({ worldSize: 3 })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    await expect(read({ worldSize: 2, rank: 2 })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });
});

describe.skipIf(!isBuilt)('limits that are raised between legs', () => {
  const steps: [string, Limits, Limits][] = [
    ['maxSamples', { maxSamples: 31 }, { maxSamples: 100 }],
    ['maxSamples into the next epoch', { maxSamples: 60, epochs: 2 }, { maxSamples: 200, epochs: 2 }],
    ['epochs', { epochs: 1 }, { epochs: 3 }],
  ];
  it.each(steps)('%s: the stream is that of the higher limit', async (_, low, high) => {
    const whole = await read({}, undefined, high);
    const begun = await read({}, undefined, low);
    const rest = await read({ state: begun.at(-1)?.state }, undefined, high);
    expect(begun.length).toBeGreaterThan(0);
    expect(rest.length).toBeGreaterThan(0);
    expect(targets([...begun, ...rest])).toEqual(targets(whole));
    expect(rest.at(-1)?.hash).toBe(whole.at(-1)?.hash);
  });
});
