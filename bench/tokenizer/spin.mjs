/**
 * How much two spinning threads do in the time of one: `node spin.mjs SECONDS` prints the work of one thread alone and of
 * two at once, as JSON. The work stays in registers, so that only cores are shared.
 */
import { isMainThread, Worker, workerData } from 'node:worker_threads';

if (isMainThread) {
  const seconds = Number(process.argv[2] ?? 1);
  /** Work that `threads` threads do together in that time. */
  const run = async (threads) => {
    const gate = new Int32Array(new SharedArrayBuffer(4));
    const counts = new Float64Array(new SharedArrayBuffer(8 * threads));
    const done = Array.from({ length: threads }, (_, index) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { seconds, gate, counts, index } });
      return new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
    });
    await Promise.all(done);
    return counts.reduce((sum, count) => sum + count, 0);
  };
  process.stdout.write(`${JSON.stringify({ one: await run(1), two: await run(2) })}\n`);
} else {
  const { seconds, gate, counts, index } = workerData;
  let [state, count] = [1, 0];
  const work = () => {
    for (let i = 0; i < 1_000_000; i++) state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
  };
  work();
  // All begin together.
  Atomics.add(gate, 0, 1);
  while (Atomics.load(gate, 0) < counts.length);
  for (const end = performance.now() + seconds * 1000; performance.now() < end; count++) work();
  // The state is told apart so that the work is not optimised away.
  counts[index] = count + (state === 0 ? 1e-9 : 0);
}
