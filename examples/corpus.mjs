// Streams documents of a dataset, in file order, without keeping any of it on the disk.
import { HuggingFaceStreamingCorpus } from 'candlewick';

// A name on the Hugging Face Hub, a local path, or `sample`: the documentation of the Python on this machine.
const corpus = new HuggingFaceStreamingCorpus('sample', { maxSamples: 100, batchSize: 20 });

let characters = 0;
for await (const text of corpus.stream()) characters += text.length;
console.log(`100 documents have ${characters} characters`);

for await (const texts of corpus.batches()) {
  console.log(`a batch has ${texts.length} documents`);
  break; // What was not read is given up.
}
await corpus.close();
