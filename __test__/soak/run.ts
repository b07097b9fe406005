/** Runs one case against its reference. */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { LocalHub } from '../support/hub.js';
import { mixture } from '../support/mixture.js';
import type { Tally } from './blows.js';
import { type Case, caseOf } from './case.js';
import { Expected } from './expected.js';
import { runLoader } from './loader-case.js';
import type { Oracle } from './oracle.js';
import { runTrainer } from './trainer-case.js';

/** What all cases share. */
export interface Bench {
  oracle: Oracle;
  /** Folder with a tokenizer. */
  tokenizer: string;
  /** Folder for whatever the cases write. */
  folder: string;
}

/** A case that is being run. */
export interface Running extends Case {
  bench: Bench;
  folder: string;
  hub: LocalHub;
  expected: Expected;
  env: Record<string, string>;
  tally: Tally;
}

/** Runs the case of a seed. Rejects with what was found to be different. */
export async function runCase(seed: number, bench: Bench): Promise<Tally> {
  const random = caseOf(seed);
  const folder = join(bench.folder, `case-${seed}`);
  const tally: Tally = { kills: 0, stops: 0, streamerKills: 0, faults: 0, requests: 0, legs: 0 };
  await mkdir(folder, { recursive: true });
  const root = (dataset: string) => join(folder, 'hub', dataset);
  for (const { dataset, files } of random.sources) await bench.oracle.write(root(dataset), files);
  const hub = await LocalHub.start(
    Object.fromEntries(random.sources.map(({ dataset }) => [dataset, root(dataset)])),
  );
  try {
    const expected = new Expected(await documentsOf(random, bench, root));
    const env = {
      HF_ENDPOINT: hub.url,
      HF_HOME: join(folder, 'hf'),
      // How long a stall lasts.
      HF_HUB_DOWNLOAD_TIMEOUT: '2',
      HF_HUB_ETAG_TIMEOUT: '2',
    };
    const running = { ...random, bench, folder, hub, expected, env, tally };
    await (random.kind === 'loader' ? runLoader(running) : runTrainer(running));
  } finally {
    await hub.close();
    await rm(folder, { recursive: true, force: true });
  }
  return tally;
}

/** The documents of the stream, as ids, by the reference. */
async function documentsOf(
  { epochs, heldOut, maxSamples, order, sources, window }: Case,
  { oracle, tokenizer }: Bench,
  root: (dataset: string) => string,
): Promise<number[][]> {
  const limit = maxSamples ?? Number.POSITIVE_INFINITY;
  const ordered = await Promise.all(
    sources.map(async ({ dataset, files, onExhausted }) => {
      const documents: number[][] = [];
      const endless = onExhausted === 'repeat';
      for (let epoch = 1; endless ? documents.length < limit : epoch <= epochs; epoch += 1) {
        const request = {
          root: root(dataset),
          files: files.map(({ path }) => path).sort(),
          seed: order,
          epoch,
        };
        documents.push(
          ...(await oracle.epoch({
            ...request,
            window,
            held_out: heldOut,
            tokenizer: join(tokenizer, 'tokenizer.json'),
          })),
        );
      }
      return documents;
    }),
  );
  const mixed = sources.map(({ onExhausted, weight }, i) => ({
    documents: ordered[i] ?? [],
    weight,
    onExhausted,
  }));
  return mixture(mixed, ({ length }) => length, limit).map(({ document }) => document);
}
