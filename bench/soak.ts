/**
 * Random runs that are interrupted in every way: `npm run soak -- --runs 200 --first-seed 0`. A case is a function of
 * its seed: `--runs 1 --first-seed N` repeats it. The promise of the Rust feed alone is tried on 10,000 cases behind it
 * (`--feed-cases N`; 0: not at all), and before it 100 SIGTERMs and 100 SIGKILLs over all phases of a run (`--stops N`).
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { Tally } from '../__test__/soak/blows.js';
import { makeBench } from '../__test__/soak/bench.js';
import { runCase } from '../__test__/soak/run.js';
import { makeStopBench, runStops } from '../__test__/soak/stop-case.js';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '200' },
    'first-seed': { type: 'string', default: '0' },
    'feed-cases': { type: 'string', default: '10000' },
    stops: { type: 'string', default: '100' },
    jobs: { type: 'string', default: '2' },
  },
});
const [runs, first, jobs] = [values.runs, values['first-seed'], values.jobs].map(Number) as [
  number,
  number,
  number,
];
const began = performance.now();
const minutes = () => ((performance.now() - began) / 60_000).toFixed(1);
const sum: Tally = { kills: 0, stops: 0, streamerKills: 0, faults: 0, requests: 0, legs: 0 };
const failed: number[] = [];
let [next, passed] = [first, 0];

const bench = await makeBench();
async function work(): Promise<void> {
  while (next < first + runs) {
    const seed = next++;
    try {
      const tally = await runCase(seed, bench);
      for (const name of Object.keys(sum) as (keyof Tally)[]) sum[name] += tally[name];
      passed += 1;
    } catch (error) {
      failed.push(seed);
      console.log(`seed ${seed} FAILED: ${error instanceof Error ? error.message : String(error)}`);
      console.log(`  again: npm run soak -- --runs 1 --first-seed ${seed} --feed-cases 0`);
    }
    const done = passed + failed.length;
    if (done % 10 === 0 || done === runs) {
      console.log(`${done} of ${runs} runs, ${failed.length} failed, ${minutes()} min`);
    }
  }
}
await Promise.all(Array.from({ length: jobs }, work));
const kinds = `${sum.kills} kill -9, ${sum.stops} stops by signal, ${sum.streamerKills} streamers killed`;
console.log(
  `${passed} of ${runs} runs gave the exact stream (seeds ${first} to ${first + runs - 1}): ${sum.legs} legs, ` +
    `${sum.legs - passed} of them repeated or resumed, ${kinds}, ${sum.faults} faults in ${sum.requests} requests of ` +
    `the hub, ${minutes()} min`,
);
if (failed.length > 0) console.log(`failed seeds: ${failed.join(', ')}`);

const stops = Number(values.stops);
let stopsFailed = false;
if (stops > 0) {
  try {
    const stopBench = await makeStopBench(join(bench.folder, 'stops'));
    // At the same time: each disturbs the other's clock.
    await Promise.all(
      (['SIGTERM', 'SIGKILL'] as const).map(async (strike) => {
        const struck = await runStops(first, strike, stops, stopBench);
        const where = [...struck].map(([kind, count]) => `${count} ${kind}`).join(', ');
        console.log(`${stops} ${strike} survived, after these lines: ${where}; ${minutes()} min`);
      }),
    );
  } catch (error) {
    stopsFailed = true;
    console.log(`stops FAILED: ${error instanceof Error ? error.message : String(error)}`);
    console.log(`  again: npm run soak -- --runs 0 --first-seed ${first} --feed-cases 0 --stops ${stops}`);
  }
}
await bench.close();

const feedCases = Number(values['feed-cases']);
let feedFailed = false;
if (feedCases > 0) {
  const test = ['test', '--locked', '-p', 'candlewick-feed', '--test', 'exactly_once'];
  const { status, stdout } = spawnSync('cargo', test, {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: 1 << 30,
    env: { ...process.env, CANDLEWICK_CASES: String(feedCases) },
  });
  feedFailed = status !== 0;
  // Which cases, and what was different; not the list of all that were begun.
  if (feedFailed) console.log(stdout.replaceAll(/^case \d+\n/gm, ''));
  console.log(
    `the feed alone over ${feedCases} cases: ${feedFailed ? `FAILED (${status})` : 'exact'}, ${minutes()} min in all`,
  );
}
process.exitCode = failed.length > 0 || stopsFailed || feedFailed ? 1 : 0;
