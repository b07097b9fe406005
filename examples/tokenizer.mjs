// Trains a tokenizer from a stream, saves it, and encodes with it.
import { HuggingFaceStreamingCorpus, Tokenizer } from 'candlewick';

const corpus = new HuggingFaceStreamingCorpus('sample');
const trained = await Tokenizer.train(corpus, {
  vocabSize: 1000,
  pattern: 'gpt2',
  maxSamples: 200,
  signal: AbortSignal.timeout(600_000),
  onProgress: ({ documents, merges, target }) =>
    console.error(`${documents} documents, ${merges} of ${target} merges`),
});
await corpus.close();
await trained.save('tokenizer');

const tokenizer = await Tokenizer.fromFile('tokenizer');
const ids = tokenizer.encode('def main():\n    return 0\n');
console.log(`${ids.length} of ${tokenizer.vocabSize} tokens: ${ids.join(' ')}`);
console.log(JSON.stringify(tokenizer.decode(ids)));
const many = await tokenizer.encodeBatch(['one', 'and another'], { threads: 2 });
console.log(`${many.length} lists of ids`);
