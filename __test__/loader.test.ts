/** StreamingTextDataLoader against a slow reference: Parquet read directly, the order rule, the `tokenizers` package. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus } from '../src/corpus/index.js';
import { type LoaderBatch, type LoaderOptions, StreamingTextDataLoader } from '../src/data/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { isBuilt } from './support/program.js';
import { hasSharedData, python, sharedData, writeParquet } from './support/python.js';
import { slowReference } from './support/reference.js';

const IGNORED = 0xffffffff;

interface Run {
  /** SHA-1 of each document's ids, end-of-text included. */
  digests: string[];
  batches: number;
  last: LoaderBatch | null;
  /** Most bytes of text and tokens that the loader held at once. */
  peak: number;
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-loader-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function bytes(ids: Uint32Array, from: number, to: number): Buffer {
  return Buffer.from(ids.buffer, ids.byteOffset + 4 * from, 4 * (to - from));
}

/** Puts the stream together again from batches and cuts it at end-of-text. */
async function run(
  dataset: string,
  tokenizer: Tokenizer,
  options: LoaderOptions & { documentsAtATime?: number; epochs?: number; stopAfter?: number },
): Promise<Run> {
  const { documentsAtATime = 1000, epochs = 1, stopAfter = Number.POSITIVE_INFINITY, ...rest } = options;
  await using corpus = new HuggingFaceStreamingCorpus(dataset, {
    batchSize: documentsAtATime,
    epochs,
    python,
  });
  await using loader = new StreamingTextDataLoader(corpus, tokenizer, rest);
  const endOfText = tokenizer.encode('<|endoftext|>')[0];
  const result: Run = { digests: [], batches: 0, last: null, peak: 0 };
  let document = createHash('sha1');
  const take = (ids: Uint32Array) => {
    let start = 0;
    for (
      let end = ids.indexOf(endOfText as number);
      end >= 0;
      end = ids.indexOf(endOfText as number, start)
    ) {
      document.update(ids.subarray(start, end + 1));
      result.digests.push(document.digest('hex'));
      document = createHash('sha1');
      start = end + 1;
    }
    document.update(ids.subarray(start));
  };
  for await (const batch of loader) {
    if (result.last === null && rest.state === undefined) take(batch.inputs.subarray(0, 1));
    // Compared as bytes: vitest's own comparison of 65,536 numbers a batch takes most of a minute.
    const follows = Buffer.compare(
      bytes(batch.inputs, 1, batch.counted),
      bytes(batch.targets, 0, batch.counted - 1),
    );
    if (follows !== 0) throw new Error(`inputs of batch ${result.batches} are not its targets one later`);
    take(batch.targets.subarray(0, batch.counted));
    const stats = loader.stats();
    result.peak = Math.max(result.peak, (stats?.text_bytes_peak ?? 0) + (stats?.token_bytes ?? 0));
    result.batches += 1;
    result.last = batch;
    if (result.batches >= stopAfter) break;
  }
  return result;
}

async function trained(dataset: string, vocabSize: number, maxSamples: number): Promise<[Tokenizer, string]> {
  await using corpus = new HuggingFaceStreamingCorpus(dataset, { python });
  const tokenizer = await Tokenizer.train(corpus, { vocabSize, maxSamples });
  const directory = join(folder, `tokenizer-${vocabSize}`);
  await tokenizer.save(directory);
  return [tokenizer, join(directory, 'tokenizer.json')];
}

describe.skipIf(!isBuilt)('a loader over small files', () => {
  let dataset: string;
  let tokenizer: Tokenizer;
  let tokenizerJson: string;
  beforeAll(async () => {
    dataset = join(folder, 'small');
    const text = (f: number, i: number) =>
      i % 11 === 3 ? null : `${f}/${i} é <|endoftext|> ${'word '.repeat(i % 17)}`;
    await writeParquet(
      ...[330, 12, 75, 0, 200, 1].map((count, f) => ({
        path: join(dataset, `part-${f}.parquet`),
        documents: Array.from({ length: count }, (_, i) => text(f, i)),
        groupRows: 3,
      })),
    );
    [tokenizer, tokenizerJson] = await trained(dataset, 300, 1000);
  });

  it('gives the documents and ids of the reference, in each epoch', async () => {
    const shape = { batchSize: 3, sequenceLength: 50, shuffleBufferSize: 40, seed: 5 };
    const found = await run(dataset, tokenizer, { ...shape, epochs: 2 });
    const request = {
      root: dataset,
      seed: 5,
      window: 40,
      held_out: 0,
      tokenizer: tokenizerJson,
      tokens: null,
    };
    const epochs = [
      await slowReference({ ...request, epoch: 1 }),
      await slowReference({ ...request, epoch: 2 }),
    ];
    expect(found.digests).toEqual(epochs.flatMap(({ digests }) => digests));
    const one = await run(dataset, tokenizer, shape);
    expect(one.last?.hash).toBe(epochs[0]?.hash);
  });

  it('goes on from the state after any batch with the rest', async () => {
    const shape = { batchSize: 2, sequenceLength: 64, shuffleBufferSize: 100, seed: 2 };
    const whole = await run(dataset, tokenizer, shape);
    for (const stopAfter of [1, Math.floor(whole.batches / 2), whole.batches - 1]) {
      const first = await run(dataset, tokenizer, { ...shape, stopAfter });
      const state = first.last?.state;
      const rest = await run(dataset, tokenizer, { ...shape, state, documentsAtATime: 7, threads: 1 });
      expect([rest.batches + stopAfter, rest.last]).toEqual([whole.batches, whole.last]);
    }
    const after = await run(dataset, tokenizer, { ...shape, state: whole.last?.state });
    expect(after.batches).toBe(0);
  });

  it('fills the last batch up with targets that count for nothing', async () => {
    const { last } = await run(dataset, tokenizer, { batchSize: 7, sequenceLength: 100 });
    const counted = last?.counted ?? 0;
    expect(last?.targets.length).toBe(700);
    expect(counted).toBeLessThan(700);
    expect(last?.targets.subarray(counted).every((target) => target === IGNORED)).toBe(true);
  });

  it('refuses a state of another seed, naming the key', async () => {
    const shape = { batchSize: 2, sequenceLength: 64, shuffleBufferSize: 100 };
    const { last } = await run(dataset, tokenizer, { ...shape, seed: 1, stopAfter: 1 });
    const other = run(dataset, tokenizer, { ...shape, seed: 2, state: last?.state });
    await expect(other).rejects.toMatchObject({
      code: 'RESUME_MISMATCH',
      message: /^data\.seed was 1 and is now 2/,
    });
  });

  it('closes early without a process left, and the corpus can be read again', async () => {
    await using corpus = new HuggingFaceStreamingCorpus(dataset, { python });
    const first: string[] = [];
    for (let turn = 0; turn < 2; turn += 1) {
      await using loader = new StreamingTextDataLoader(corpus, tokenizer, {
        batchSize: 1,
        sequenceLength: 8,
      });
      for await (const batch of loader) {
        first.push(batch.hash);
        break;
      }
    }
    expect(first[0]).toBe(first[1]);
  });
});

describe.skipIf(!isBuilt || !hasSharedData)('a loader over 26,033 documents of web text', () => {
  const dataset = join(sharedData, 'web-text');
  const shape = { batchSize: 64, sequenceLength: 1024, shuffleBufferSize: 10_000, seed: 1 };
  let tokenizer: Tokenizer;
  let tokenizerJson: string;
  let whole: Run;
  beforeAll(async () => {
    [tokenizer, tokenizerJson] = await trained(dataset, 8000, 3000);
    whole = await run(dataset, tokenizer, { ...shape, threads: 2 });
  }, 300_000);

  it('gives each document once, in the order and with the ids of the reference', async () => {
    const files = Array.from({ length: 9 }, (_, i) => `data/D-2026-01/000_0000${i}.parquet`);
    const request = { root: dataset, seed: 1, epoch: 1, window: 10_000, held_out: 0, tokens: null };
    const reference = await slowReference({ ...request, tokenizer: tokenizerJson }, files);
    expect(whole.digests.length).toBe(26_033);
    expect(whole.digests).toEqual(reference.digests);
    expect(whole.last?.hash).toBe(reference.hash);
  }, 600_000);

  it('gives the same for frames of 37 documents and one thread', async () => {
    const other = await run(dataset, tokenizer, { ...shape, threads: 1, documentsAtATime: 37 });
    expect(other.digests).toEqual(whole.digests);
    expect(other.last).toEqual(whole.last);
  }, 300_000);

  it('goes on in the middle with the rest', async () => {
    const stopAfter = Math.floor(whole.batches * 0.7);
    const first = await run(dataset, tokenizer, { ...shape, stopAfter });
    const rest = await run(dataset, tokenizer, { ...shape, state: first.last?.state });
    expect([stopAfter + rest.batches, rest.last]).toEqual([whole.batches, whole.last]);
  }, 300_000);

  it('holds at most 100 MB of text and tokens', () => {
    expect(whole.peak).toBeLessThanOrEqual(100_000_000);
  });
});
