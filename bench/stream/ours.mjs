/**
 * Our side of bench/stream.ts in a process of its own: `node ours.mjs '{"dataset": …}'` prints a line of JSON. Plain
 * JavaScript, so that what strips types is not in its memory.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { HuggingFaceStreamingCorpus, Tokenizer } from '../../dist/index.js';
import { native } from '../../dist/native/index.js';

const work = JSON.parse(process.argv[2] ?? '{}');
const began = performance.now();
const since = () => (performance.now() - began) / 1000;
const phases = {};
const corpus = new HuggingFaceStreamingCorpus(work.dataset, {
  onEvent: (event) => {
    if (event.type === 'loading') phases[event.phase] = since();
    else if (event.type === 'ready') phases.ready = since();
  },
});
const rows = 16;
const sequenceLength = 1024;
const { bytes = Number.POSITIVE_INFINITY } = work;

const peak = (pid) => {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024;
};
const forget = (pid) => writeFileSync(`/proc/${pid}/clear_refs`, '5');
const cpuOf = (pid) => {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
};

const open = await corpus.open();
const [source] = open.sources;
if (source === undefined) throw new Error('a corpus has a source');
const opened = performance.now();
const streamer = Number(
  readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ')[0] ?? 0,
);
const tokenizer = work.tokenizer === null ? null : await Tokenizer.fromFile(work.tokenizer);
const feed = native().createFeed(
  {
    sources: [
      {
        files: source.ready.files,
        row_groups: source.ready.row_groups,
        weight: 1,
        on_exhausted: 'stop',
        held_out: null,
      },
    ],
    order: 'shuffled',
    seed: 1,
    shuffle_buffer_size: work.window,
    batch_size: 1000,
    epochs: 1,
    max_samples: null,
    threads: 0,
    ...(tokenizer === null
      ? {}
      : { batches: { rows, sequence_length: sequenceLength, rank: 0, world_size: 1 } }),
    ...(work.state === undefined ? {} : { state: work.state }),
  },
  [source.link],
  tokenizer?.native,
);
const stats = () => JSON.parse(feed.stats());

const peaks = [];
const waits = [];
let [batches, state, bytesAtFirst, rowsAtFirst] = [0, '', 0, 0];
for (;;) {
  const due = work.rate === undefined ? 0 : (batches * rows * sequenceLength * 1000) / work.rate;
  const early = opened + due - performance.now();
  if (work.rate !== undefined && early > 0) await new Promise((resolve) => setTimeout(resolve, early));
  const asked = performance.now();
  const answer = JSON.parse(await feed.advance(tokenizer === null ? 1000 : 1));
  if (answer.batches === 0) break;
  batches++;
  state = JSON.stringify(answer.state);
  if (batches === 1) {
    phases.first_batch = since();
    ({ bytes_read: bytesAtFirst, rows_read: rowsAtFirst } = stats());
  } else waits.push(performance.now() - asked);
  const read = stats().bytes_read;
  if (work.half !== undefined && peaks.length === 0 && read >= work.half) {
    peaks.push({ node: peak('self'), streamer: peak(streamer) });
    forget('self');
    forget(streamer);
  }
  if (read >= bytes) break;
}
const seconds = (performance.now() - opened) / 1000;
peaks.push({ node: peak('self'), streamer: peak(streamer) });
const { user, system } = process.cpuUsage();
const { bytes_read, rows_read } = stats();
const outcome = {
  bytes: bytes_read,
  rows: rows_read,
  tokens: batches * rows * sequenceLength,
  seconds,
  phases,
  cpu: (user + system) / 1e6,
  streamerCpu: cpuOf(streamer),
  peaks,
  bytesAtFirst,
  rowsAtFirst,
  state,
  waits: waits.sort((a, b) => a - b),
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
await feed.close();
open.release();
await corpus.close();
