/**
 * Ten of the random runs of `npm run soak`: the hub fails, streamers and whole programs are killed, and the stream is
 * the exact one. `SOAK_SEED=N` runs one of them alone.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeBench } from './soak/bench.js';
import { runCase } from './soak/run.js';
import { isBuilt } from './support/program.js';

const { SOAK_SEED: only } = process.env;
const seeds = only === undefined ? Array.from({ length: 10 }, (_, seed) => seed) : [Number(only)];
/** Two cases at a time, however many vitest starts. */
const lanes: Promise<unknown>[] = [Promise.resolve(), Promise.resolve()];

describe.skipIf(!isBuilt)('a run that is interrupted at random gives the exact stream', () => {
  let bench: Awaited<ReturnType<typeof makeBench>>;
  beforeAll(async () => {
    bench = await makeBench();
  });
  afterAll(() => bench.close());

  it.concurrent.each(seeds)(
    'of seed %i',
    async (seed) => {
      const before = lanes.shift();
      const running = Promise.resolve(before).then(() => runCase(seed, bench));
      lanes.push(running.catch(() => {}));
      expect((await running).legs).toBeGreaterThan(0);
    },
    600_000,
  );
});
