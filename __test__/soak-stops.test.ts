/** Some of the stops of `npm run soak`, over all phases of a run. `SOAK_SEED=N` chooses others. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeStopBench, runStops } from './soak/stop-case.js';
import type { StopBench } from './soak/stop-case.js';
import { isBuilt } from './support/program.js';

const seed = Number(process.env['SOAK_SEED'] ?? 0);

describe.skipIf(!isBuilt || process.platform !== 'linux')('a run that is struck at random', () => {
  let bench: StopBench;
  beforeAll(async () => {
    bench = await makeStopBench(await mkdtemp(join(tmpdir(), 'candlewick-stops-')));
  });
  afterAll(() => rm(bench.folder, { recursive: true, force: true }));

  it.each([
    ['SIGTERM', 10, 'exits with 143 and leaves a checkpoint of its last step'],
    ['SIGKILL', 5, 'loses at most the steps since the last save'],
  ] as const)(
    `by %s %i times (seed ${seed}) %s, and its losses are exact`,
    { timeout: 300_000 },
    async (strike, count, _) => {
      const struck = await runStops(seed, strike, count, bench);
      expect([...struck.values()].reduce((sum, n) => sum + n, 0)).toBe(count);
    },
  );
});
