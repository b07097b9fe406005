/** Trainers and corpora in one process do not disturb each other. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ProcessStreamingCorpus } from '../src/corpus/index.js';
import { StreamingTextDataLoader } from '../src/data/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { isBuilt } from './support/program.js';
import { TinyRuns } from './support/tiny-run.js';

let runs: TinyRuns;
beforeAll(async () => {
  runs = await TinyRuns.make();
});
afterAll(() => runs.close());

const at = (name: string) => join(runs.root, name);

describe.skipIf(!isBuilt)('side by side', () => {
  it('three trainers have the losses, to the last bit, that each has alone', async () => {
    const seeds = [1, 2, 3];
    const one = (name: string) => async (seed: number) => {
      await runs.train(at(`${name}-${seed}`), 12, {
        config: { training: { global_batch_size: 2, max_steps: 12, threads: 1, seed } },
      });
      return runs.losses(at(`${name}-${seed}`));
    };
    const alone: string[][] = [];
    for (const seed of seeds) alone.push(await one('alone')(seed));
    expect(new Set(alone.map((losses) => losses.join())).size).toBe(seeds.length);
    expect(await Promise.all(seeds.map(one('together')))).toEqual(alone);
  });

  it('one that is stopped, and one whose source breaks, leave the third as it is', async () => {
    await runs.train(at('reference'), 12);
    const broken = new ProcessStreamingCorpus(['sh', '-c', 'echo nonsense']);
    const tokenizer = await Tokenizer.fromFile(at('tokenizer'));
    // Somebody listens from the start: it fails while the others are made.
    const failing = Promise.allSettled([
      (async () => {
        try {
          for await (const _ of new StreamingTextDataLoader(broken, tokenizer, {
            batchSize: 1,
            sequenceLength: 8,
          }));
        } finally {
          await broken.close();
        }
      })(),
    ]);
    const { Trainer } = await import('../src/run/index.js');
    const documents = new ProcessStreamingCorpus(['cat', at('documents.jsonl')], { epochs: null });
    const stopped = await Trainer.create({
      config: runs.config(1000),
      corpus: documents,
      output: at('stopped'),
    });
    const ends = (async () => {
      for await (const event of stopped.run()) if (event.type === 'step' && event.step === 3) stopped.stop();
      await stopped.close();
      await documents.close();
    })();
    const [[failure]] = await Promise.all([failing, ends, runs.train(at('third'), 12)]);
    expect(failure).toMatchObject({ status: 'rejected', reason: { code: 'PROTOCOL_VIOLATION' } });
    expect(await runs.losses(at('third'))).toEqual(await runs.losses(at('reference')));
  });

  it('loaders over one corpus, and over several, have the stream that each has alone', async () => {
    const tokenizer = await Tokenizer.fromFile(at('tokenizer'));
    const open = () => new ProcessStreamingCorpus(['cat', at('documents.jsonl')], { epochs: 3 });
    const hash = async (corpus: ProcessStreamingCorpus, seed: number) => {
      let last = '';
      const options = { batchSize: 2, sequenceLength: 16, shuffleBufferSize: 10, seed };
      for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, options)) last = batch.hash;
      return last;
    };
    const shared = open();
    const alone = [await hash(shared, 1), await hash(shared, 2)];
    expect(alone[0]).not.toBe(alone[1]);
    const others = [open(), open()] as const;
    const together = await Promise.all([
      hash(shared, 1),
      hash(shared, 2),
      hash(others[0], 1),
      hash(others[1], 2),
    ]);
    expect(together).toEqual([...alone, ...alone]);
    await Promise.all([shared, ...others].map((corpus) => corpus.close()));
  });
});
