/** What all cases share: one oracle, one tokenizer, one folder. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from '../../src/tokenizer/index.js';
import { datasetOf } from './dataset.js';
import { Oracle } from './oracle.js';
import { Random } from './random.js';
import type { Bench } from './run.js';

/** Makes it; close it in the end. */
export async function makeBench(): Promise<Bench & { close(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'candlewick-soak-'));
  const tokenizer = join(folder, 'tokenizer');
  const random = new Random('tokenizer');
  const texts = Array.from({ length: 20 }, () => datasetOf(random)).flat();
  const documents = texts.flatMap((file) => file.documents).filter((text) => text !== null);
  await (await Tokenizer.train(documents, { vocabSize: 300 })).save(tokenizer);
  const oracle = await Oracle.start();
  return {
    oracle,
    tokenizer,
    folder,
    async close() {
      await oracle.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
