// Batches of tokens for a training loop of your own, and the same stream again from the middle.
import { HuggingFaceStreamingCorpus, StreamingTextDataLoader, Tokenizer } from 'candlewick';

const corpus = new HuggingFaceStreamingCorpus('sample', { maxSamples: 300 });
const tokenizer = await Tokenizer.train(corpus, { vocabSize: 500, maxSamples: 100 });
const options = { batchSize: 4, sequenceLength: 64, shuffleBufferSize: 100, seed: 1 };

const hashes = [];
let state;
for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, options)) {
  // batch.inputs and batch.targets: Uint32Array of 4 × 64 ids, one sequence after the other.
  hashes.push(batch.hash);
  if (hashes.length === 3) state = batch.state; // JSON of a few kilobytes: keep it beside your checkpoint
  if (hashes.length === 6) break;
}

const resumed = [];
for await (const batch of new StreamingTextDataLoader(corpus, tokenizer, { ...options, state })) {
  resumed.push(batch.hash);
  if (resumed.length === 3) break;
}
console.log(
  `resumed at the fourth batch: ${resumed.join() === hashes.slice(3).join() ? 'the same stream' : 'ANOTHER STREAM'}`,
);
await corpus.close();
