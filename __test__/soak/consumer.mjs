/**
 * A training program without a model: `node consumer.mjs <options in JSON>`. It goes on from the state that it saved
 * last, writes each batch down, says so on stdout, waits for a line on stdin, and now and then saves its state the way
 * a careful program does. SIGINT and SIGTERM let it save and end.
 */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { HuggingFaceStreamingCorpus, MultiCorpus, StreamingTextDataLoader, Tokenizer } from 'candlewick';

const { epochs, journal, loader, maxSamples, retryDelay, saveEvery, saved, sources, tokenizer } = JSON.parse(
  process.argv[2],
);
let stopped = 0;
process.on('SIGINT', () => (stopped = 130));
process.on('SIGTERM', () => (stopped = 143));

const say = (word) => writeSync(1, `${word}\n`);
const base64 = (ids) => Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength).toString('base64');
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function save(batches, state) {
  say('saving');
  const temporary = `${saved}.new`;
  const file = openSync(temporary, 'w');
  writeSync(file, JSON.stringify({ batches, state }));
  fsyncSync(file);
  closeSync(file);
  renameSync(temporary, saved);
}

const before = existsSync(saved) ? JSON.parse(readFileSync(saved, 'utf8')) : { batches: 0 };
const members = sources.map(({ dataset, documentsAtATime: batchSize, onExhausted, weight }) => ({
  corpus: new HuggingFaceStreamingCorpus(dataset, {
    batchSize,
    retryDelay,
    ...(sources.length === 1 ? { epochs, maxSamples } : {}),
  }),
  weight,
  onExhausted,
}));
const corpus = members.length === 1 ? members[0].corpus : new MultiCorpus(members, { epochs, maxSamples });
const stream = new StreamingTextDataLoader(corpus, await Tokenizer.fromFile(tokenizer), {
  ...loader,
  state: before.state,
});
const lines = openSync(journal, 'a');
let { batches, state } = before;
for await (const batch of stream) {
  const { counted, hash, inputs, targets } = batch;
  writeSync(
    lines,
    `${JSON.stringify({ inputs: base64(inputs), targets: base64(targets), counted, hash })}\n`,
  );
  batches += 1;
  state = batch.state;
  say('batch');
  await answers.next();
  if (stopped) break;
  if (batches % saveEvery === 0) save(batches, state);
}
if (state !== undefined) save(batches, state);
await corpus.close();
process.exit(stopped);
