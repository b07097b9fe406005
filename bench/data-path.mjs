/**
 * What the data path costs without a model: resident memory of Node and of the streamer at window 10,000, the time to
 * the first batch, the longest wait after it, MB/s of text. `node bench/data-path.mjs [DATASET] [BATCHES]`
 *
 * Tokens are taken as fast as they come, so waits after the first batch are the price of tokenizing on this machine.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { HuggingFaceStreamingCorpus, StreamingTextDataLoader, Tokenizer } from '../dist/index.js';

const [dataset = '../shared/data/web-text', limit = 'all'] = process.argv.slice(2);
const MB = 1e6;
const rss = (pid) => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return (Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024) / MB;
};
/** Our children: the streamer is the only one. */
const streamer = () =>
  readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .find((pid) => {
      try {
        return (
          readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ')[1] === String(process.pid)
        );
      } catch {
        return false;
      }
    });

const baseline = rss(process.pid);
const forTokenizer = new HuggingFaceStreamingCorpus(dataset);
const tokenizer = await Tokenizer.train(forTokenizer, { vocabSize: 32_000, maxSamples: 10_000 });
await forTokenizer.close();
const trained = rss(process.pid);

const began = performance.now();
const seconds = () => (performance.now() - began) / 1000;
const corpus = new HuggingFaceStreamingCorpus(dataset, {
  onEvent: (e) => events.push([seconds(), e.type]),
});
const events = [];
const loader = new StreamingTextDataLoader(corpus, tokenizer, {
  batchSize: 16,
  sequenceLength: 1024,
  shuffleBufferSize: 10_000,
});
let [first, last, longest, batches, python] = [0, 0, 0, 0, 0];
const waits = [];
for await (const batch of loader) {
  const now = seconds();
  batches += 1;
  if (batches === 1) first = now;
  else {
    waits.push(now - last);
    longest = Math.max(longest, now - last);
  }
  if (batches % 50 === 1) {
    const pid = streamer();
    if (pid !== undefined) python = Math.max(python, rss(pid));
  }
  last = now;
  if (String(batches) === limit || batch === null) break;
}
const stats = loader.stats();
waits.sort((a, b) => a - b);
const ms = (value) => `${(value * 1000).toFixed(1)} ms`;
console.log(
  `dataset ${dataset}: ${(stats.bytes_read / MB).toFixed(1)} MB of text, ${batches} batches of 16,384 tokens`,
);
console.log(
  `time to the first batch ${first.toFixed(2)} s (${events.map(([t, e]) => `${e} ${t.toFixed(2)} s`).join(', ')})`,
);
console.log(`wait a batch: median ${ms(waits[waits.length >> 1])}, longest ${ms(longest)}`);
console.log(`from the first batch on: ${(stats.bytes_read / MB / (last - first)).toFixed(0)} MB/s of text`);
console.log(
  `peak resident: node ${rss(process.pid).toFixed(0)} MB (${baseline.toFixed(0)} MB at start, ${trained.toFixed(0)} MB after training the tokenizer), streamer ${python.toFixed(0)} MB`,
);
console.log(
  `counted buffers: text at most ${(stats.text_bytes_peak / MB).toFixed(1)} MB, tokens now ${(stats.token_bytes / MB).toFixed(1)} MB`,
);
await corpus.close();
