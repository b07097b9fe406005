/** Reads every document of a dataset in file order and drops it: `node drain.mjs DATASET LIMIT` prints a line of JSON. */
import { HuggingFaceStreamingCorpus } from '../../dist/index.js';
import { native } from '../../dist/native/index.js';

const [dataset = '', limit] = process.argv.slice(2);
const began = performance.now();
const corpus = new HuggingFaceStreamingCorpus(dataset);
const open = await corpus.open();
const feed = native().createFeed(
  {
    sources: open.sources.map(({ ready }) => ({
      files: ready.files,
      row_groups: ready.row_groups,
      weight: 1,
      on_exhausted: 'stop',
      held_out: null,
    })),
    order: 'file',
    seed: 0,
    shuffle_buffer_size: 1,
    batch_size: 1000,
    epochs: 1,
    max_samples: Number(limit),
    threads: 0,
  },
  open.sources.map(({ link }) => link),
);
let documents = 0;
for (;;) {
  const { batches } = JSON.parse(await feed.advance(4096));
  if (batches === 0) break;
  documents += batches;
}
const { bytes_read: bytes } = JSON.parse(feed.stats());
await feed.close();
open.release();
await corpus.close();
console.log(JSON.stringify({ documents, bytes, seconds: (performance.now() - began) / 1000 }));
