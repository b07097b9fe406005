/**
 * Training a tokenizer beside its peers, documents in memory, in one run:
 * `npm run bench:tokenizer-training [-- --rounds 5] [--vocab-size 32000] [--megabytes 100]
 * [--peers gigatoken,tokenizers,rustbpe] [--stream]`.
 *
 * Every side is a process of its own; the rounds interleave them. Ours is `Tokenizer.train` on `Uint8Array`s in Node,
 * with one thread and with two; the peers are Python packages on all processors. gigatoken's and tokenizers' merges are
 * compared with ours. With `--stream`, instead: `train-tokenizer-streaming` over a hub on this machine beside draining
 * the same stream. Needs ../shared/data.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { python } from '../__test__/support/python.js';
import { documentsOf, flatFile, packages } from './tokenizer/inputs.js';
import { streamed } from './tokenizer-training/streamed.js';

const here = dirname(fileURLToPath(import.meta.url));
const run = promisify(execFile);
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    'vocab-size': { type: 'string', default: '32000' },
    megabytes: { type: 'string', default: '100' },
    peers: { type: 'string', default: 'gigatoken,tokenizers,rustbpe' },
    stream: { type: 'boolean', default: false },
    documents: { type: 'string', default: '1000000' },
  },
});

interface Outcome {
  seconds: number;
  merges: number;
  /** Kilobytes that the process held at most. */
  peak: number;
}

interface Side {
  name: string;
  measure(documents: string, merges: string): Promise<Outcome>;
}

async function outcomeOf(command: string, args: string[]): Promise<Outcome> {
  const { stdout } = await run(command, args, { maxBuffer: 1 << 28 });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Outcome;
}

const vocabSize = values['vocab-size'];
const ours = (threads: number): Side => ({
  name: `candlewick, ${threads === 1 ? 'one thread' : `${threads} threads`}`,
  measure: (documents, merges) =>
    outcomeOf('env', [
      `RAYON_NUM_THREADS=${threads}`,
      process.execPath,
      join(here, 'tokenizer-training', 'ours.mjs'),
      documents,
      vocabSize,
      merges,
    ]),
});
const peer = async (name: string, spec: string): Promise<Side> => {
  const folder = await packages(spec);
  const script = join(here, 'tokenizer-training', 'peer.py');
  return {
    name: spec.replace('==', ' '),
    measure: (documents, merges) =>
      outcomeOf('env', [`PYTHONPATH=${folder}`, python, script, name, documents, vocabSize, merges]),
  };
};

/** All of the languages and code, then web text up to the size. */
async function documents(path: string, bytes: number): Promise<void> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (const set of ['multilingual-code', 'web-text'] as const) {
    for await (const document of documentsOf(await flatFile(set))) {
      if (total + document.length > bytes) continue;
      total += document.length;
      const length = Buffer.alloc(4);
      length.writeUInt32LE(document.length);
      parts.push(length, document);
    }
  }
  await writeFile(path, Buffer.concat(parts));
  console.log(`${parts.length / 2} documents, ${(total / 1e6).toFixed(1)} MB, ${vocabSize} tokens`);
}

const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;

async function inMemory(scratch: string): Promise<void> {
  const path = join(scratch, 'documents');
  await documents(path, Number(values.megabytes) * 1e6);
  const sides = [ours(1), ours(2)];
  for (const [name, spec] of [
    ['gigatoken', 'gigatoken==0.10.0'],
    ['tokenizers', 'tokenizers==0.23.3'],
    ['rustbpe', 'rustbpe==0.1.0'],
  ] as const) {
    if (values.peers.split(',').includes(name)) sides.push(await peer(name, spec));
  }
  const seconds = sides.map((): number[] => []);
  const peaks = sides.map(() => 0);
  const merges = new Map<string, string>();
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [at, side] of sides.entries()) {
      const file = join(scratch, `merges-${at}`);
      const outcome = await side.measure(path, file);
      seconds[at]?.push(outcome.seconds);
      peaks[at] = Math.max(peaks[at] ?? 0, outcome.peak);
      if (outcome.merges > 0) merges.set(side.name, await readFile(file, 'utf8'));
      console.log(`round ${round + 1}: ${side.name} ${outcome.seconds.toFixed(2)} s`);
    }
  }
  const [, two = []] = seconds;
  for (const [at, side] of sides.entries()) {
    const all = seconds[at] ?? [];
    const ratio = median(all) / median(two);
    const text = merges.get(side.name);
    const same =
      text === undefined
        ? ''
        : text === merges.get(sides[1]?.name ?? '')
          ? ', same merges'
          : ', OTHER MERGES';
    console.log(
      `${side.name}: median ${median(all).toFixed(2)} s, least ${Math.min(...all).toFixed(2)} s, ` +
        `${ratio.toFixed(2)} times ours with two threads, peak ${((peaks[at] ?? 0) / 1e3).toFixed(0)} MB${same}`,
    );
  }
}

const scratch = await mkdtemp(join(tmpdir(), 'candlewick-bench-training-'));
console.log(`${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.versions.node}`);
try {
  if (values.stream) await streamed(scratch, Number(values.documents), Number(values.rounds));
  else await inMemory(scratch);
} finally {
  await rm(scratch, { recursive: true, force: true });
}
