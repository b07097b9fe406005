/** One of several threads that try to take a lock at once, round after round; see run-directory.test.ts. */
import { writeFileSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { CandlewickError } from '../../src/errors.js';
import { Lock } from '../../src/run/lock.js';

/** What a racer is given. */
export interface Race {
  root: string;
  path: string;
  /** What is in the lock when a round begins; null: there is none. */
  stale: string | null;
  racers: number;
  first: boolean;
  /** How often racers have come to a meeting point. */
  met: Int32Array;
  /** Of each round, how many got the lock; 100 more for each that was refused it for another reason than its being held. */
  won: Int32Array;
}

const { first, met, path, racers, root, stale, won } = workerData as Race;

function meet(): void {
  const mine = Atomics.add(met, 0, 1) + 1;
  const all = Math.ceil(mine / racers) * racers;
  Atomics.notify(met, 0);
  for (let seen = Atomics.load(met, 0); seen < all; seen = Atomics.load(met, 0)) Atomics.wait(met, 0, seen);
}

for (let round = 0; round < won.length; round++) {
  if (first && stale !== null) writeFileSync(path, stale);
  meet();
  const lock = await Lock.acquire(path, root).catch((cause: unknown) => cause);
  if (lock instanceof Lock) Atomics.add(won, round, 1);
  else if (!(lock instanceof CandlewickError && lock.code === 'OUTPUT_IN_USE')) Atomics.add(won, round, 100);
  meet();
  if (lock instanceof Lock) lock.release();
  meet();
}
