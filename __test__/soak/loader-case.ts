/** A case over the Node API: every batch of every leg is compared, those that were lost and came again included. */
import { join } from 'node:path';
import { repository } from '../support/python.js';
import { runLeg } from './blows.js';
import { blowsOf } from './case.js';
import { difference, readJournal, savedBatches } from './journal.js';
import type { Running } from './run.js';

const resumes = 5;

/** Rejects with what was found to be different. */
export async function runLoader(running: Running): Promise<void> {
  const { bench, env, expected, faults, folder, hub, maxSamples, order, random, rows, sequenceLength } =
    running;
  const size = rows * sequenceLength;
  const saved = join(folder, 'state.json');
  // Input that each batch of the run begins with; the state after n batches is that of the n-th place.
  const places = [0];
  const legs = 1 + random.below(resumes + 1);
  for (let leg = 1; leg <= legs; leg += 1) {
    const isLast = leg === legs;
    // A limit that is raised later.
    const low = !isLast && random.oneIn(4) ? 1 + random.below(expected.ends.length) : null;
    const limit = low ?? maxSamples;
    const left = Math.ceil((expected.targets - (places.at(-1) ?? 0)) / size);
    const journal = join(folder, `leg-${leg}`);
    const options = {
      sources: running.sources.map(({ dataset, onExhausted, weight }) => ({
        dataset,
        onExhausted,
        weight,
        documentsAtATime: 1 + random.below(60),
      })),
      tokenizer: bench.tokenizer,
      loader: {
        batchSize: rows,
        sequenceLength,
        shuffleBufferSize: running.window,
        seed: order,
        threads: 1 + random.below(2),
      },
      epochs: running.epochs,
      maxSamples: limit,
      retryDelay: 0.01,
      saveEvery: 1 + random.below(Math.max(1, Math.ceil(left / 4))),
      saved,
      journal,
    };
    const { end, stderr } = await runLeg(
      {
        argv: [join(repository, '__test__/soak/consumer.mjs'), JSON.stringify(options)],
        env,
        blows: blowsOf(random, left, isLast),
        meaning: (line) => (line === 'batch' ? 'batch' : line === 'saving' ? 'save' : null),
        hub,
        faults,
      },
      running.tally,
    );
    const where = `leg ${leg} of ${legs}`;
    const endings: unknown[] = isLast ? [0] : [0, 130, 143, 'SIGKILL', 'SIGINT', 'SIGTERM'];
    if (!endings.includes(end)) throw new Error(`${where} ended with ${end}: ${stderr}`);
    let at = places.at(-1) as number;
    for (const [number, batch] of readJournal(journal).entries()) {
      const wanted = expected.batch(at, size, limit ?? Number.POSITIVE_INFINITY);
      const differs = wanted ? difference(batch, wanted) : 'the stream should have ended';
      if (differs !== null) throw new Error(`${where}, batch ${number + 1}, from token ${at}: ${differs}`);
      at += batch.counted;
      places.push(at);
    }
    if (end === 0 && expected.batch(at, size, limit ?? Number.POSITIVE_INFINITY) !== null) {
      throw new Error(`${where} ended at token ${at} of ${expected.targets}: ${stderr}`);
    }
    // What came after the last saved state is lost, and has to come again.
    places.length = savedBatches(saved) + 1;
    if (places.includes(undefined as never)) throw new Error(`${where} saved more batches than it had`);
  }
  if (places.at(-1) !== expected.targets) {
    throw new Error(`${places.at(-1)} targets came instead of ${expected.targets}`);
  }
}
