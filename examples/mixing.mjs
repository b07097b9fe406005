// Two sources mixed by their share of the tokens; the second is a program that writes documents as JSON lines.
import { writeFile } from 'node:fs/promises';
import {
  HuggingFaceStreamingCorpus,
  MultiCorpus,
  ProcessStreamingCorpus,
  StreamingTextDataLoader,
  Tokenizer,
} from 'candlewick';

await writeFile(
  'poems.mjs',
  `for (let line = 1; line <= 500; line++) console.log(JSON.stringify({ batch: ['a poem of line ' + line] }));
   console.log(JSON.stringify({ done: true, total: 500 }));`,
);
const code = new HuggingFaceStreamingCorpus('sample');
const poems = new ProcessStreamingCorpus([process.execPath, 'poems.mjs']);
const mixed = new MultiCorpus(
  [
    { corpus: code, weight: 3 },
    { corpus: poems, weight: 1, onExhausted: 'repeat' },
  ],
  { maxSamples: 400 },
);

const tokenizer = await Tokenizer.train(['a poem of a line, and some code: def f(x): return x'], {
  vocabSize: 270,
});
const loader = new StreamingTextDataLoader(mixed, tokenizer, { batchSize: 2, sequenceLength: 128 });
let batches = 0;
for await (const batch of loader) {
  batches += 1;
  if (batches === 20) {
    const { sources } = JSON.parse(batch.state);
    console.log(`${batches} batches of ${sources.length} sources`);
    break;
  }
}
await mixed.close(); // closes both
