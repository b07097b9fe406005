/**
 * The stream beside its peers, over a hub on this machine, in one run:
 * `npm run bench:stream [-- throughput|frames|resume|memory|latency …]` (default: all). About ten minutes.
 *
 * Needs ../shared/data/web-text and the Python environment. Every side is a process of its own, one after the other,
 * the order turned around each round; medians. The hub's share of the processor is printed beside what it served.
 */
import { execFile, spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { HubProcess } from '../__test__/support/hub-start.js';
import { python, sharedData } from '../__test__/support/python.js';
import { peerPackages } from '../__test__/support/reference.js';
import { HuggingFaceStreamingCorpus, Tokenizer } from '../dist/index.js';

const MB = 1e6;

/** What to do. */
interface Work {
  dataset: string;
  /** Directory of a tokenizer; null: documents without tokens. */
  tokenizer: string | null;
  /** Documents a window. */
  window: number;
  /** Text to read at most. */
  bytes?: number;
  /** Text after which peaks of memory are taken and forgotten. */
  half?: number;
  state?: string;
  /** Tokens a second to take them at; default: as they come. */
  rate?: number;
}

interface Outcome {
  bytes: number;
  rows: number;
  tokens: number;
  /** From the open dataset to the end. */
  seconds: number;
  /** Seconds from the start of the process's work until each phase. */
  phases: Record<string, number>;
  cpu: number;
  streamerCpu: number;
  peaks: { node: number; streamer: number }[];
  bytesAtFirst: number;
  rowsAtFirst: number;
  state: string;
  /** Waits of every batch but the first, milliseconds, sorted. */
  waits: number[];
}

const here = dirname(fileURLToPath(import.meta.url));
const asked = process.argv.slice(2);
const wants = (name: string) => asked.length === 0 || asked.includes(name);
const print = (line = '') => console.log(line);
const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const shown = (values: number[], digits = 0) => values.map((v) => v.toFixed(digits)).join(', ');

const scratch = await mkdtemp(join(tmpdir(), 'candlewick-bench-'));
process.env.CANDLEWICK_PYTHON = python;
process.env.HF_HOME = join(scratch, 'hf');
process.env.HF_HUB_DISABLE_PROGRESS_BARS = '1';

/** Our side, in a fresh process. */
async function ours(work: Work): Promise<Outcome> {
  const { stdout } = await run(process.execPath, [join(here, 'stream/ours.mjs'), JSON.stringify(work)], {
    maxBuffer: 1 << 28,
  });
  return JSON.parse(stdout) as Outcome;
}

interface PeerOutcome {
  rows: number;
  bytes: number;
  seconds: number;
  first: number;
  cpu: number;
  peaks: number[];
}

async function peer(mode: string, options: object): Promise<PeerOutcome> {
  const { stdout } = await run(python, [join(here, 'stream/peer.py'), mode, JSON.stringify(options)], {
    maxBuffer: 1 << 30,
  });
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}') as PeerOutcome;
}

function run(file: string, args: string[], options: object): Promise<{ stdout: string }> {
  return promisify(execFile)(file, args, options) as unknown as Promise<{ stdout: string }>;
}

interface Report {
  requests: number;
  bytes: number;
  seconds: number;
}

/** Runs `body` and tells what the hub did meanwhile. */
async function watched<T>(hub: HubProcess, body: () => Promise<T>): Promise<{ result: T; hub: Report }> {
  const before = (await hub.tell({ report: true })) as Report;
  const result = await body();
  const after = (await hub.tell({ report: true })) as Report;
  return {
    result,
    hub: {
      requests: after.requests - before.requests,
      bytes: after.bytes - before.bytes,
      seconds: after.seconds - before.seconds,
    },
  };
}

/** The shared text `times` over, each time with other words exchanged, in one or several files of 1,000-row groups. */
async function perturbed(name: string, times: number, files: number): Promise<string> {
  const folder = join(scratch, name);
  const script = join(here, 'stream/perturbed.py');
  await run(
    python,
    [script, join(sharedData, 'web-text'), join(folder, 'data'), String(times), String(files)],
    {},
  );
  return folder;
}

async function tokenizerOf(folder: string): Promise<string> {
  const corpus = new HuggingFaceStreamingCorpus(folder);
  const tokenizer = await Tokenizer.train(corpus, { vocabSize: 32_000, maxSamples: 10_000 });
  await corpus.close();
  const path = join(scratch, 'tokenizer');
  await tokenizer.save(path);
  return path;
}

async function throughput(tokenizer: string): Promise<void> {
  const hub = await HubProcess.start({ repositories: { 'bench/text': join(sharedData, 'web-text') } });
  process.env.HF_ENDPOINT = hub.url;
  const packages = await peerPackages();
  const dataset = 'bench/text';
  const rounds = 3;
  const results = {
    tokens: [] as number[],
    documents: [] as number[],
    arrow: [] as number[],
    python: [] as number[],
  };
  const shares: string[] = [];
  const stages: Record<
    keyof typeof results,
    () => Promise<{ bytes: number; rows: number; seconds: number; cpu: number }>
  > = {
    tokens: () => ours({ dataset, tokenizer, window: 10_000 }),
    documents: () => ours({ dataset, tokenizer: null, window: 10_000 }),
    arrow: () => peer('arrow', { dataset }),
    python: () =>
      peer('tokenized', { dataset, packages, tokenizer: join(tokenizer, 'tokenizer.json'), bytes: 40 * MB }),
  };
  for (let round = 0; round < rounds; round++) {
    const names = Object.keys(stages) as (keyof typeof results)[];
    for (const name of round % 2 === 0 ? names : names.reverse()) {
      const { result, hub: did } = await watched(hub, stages[name]);
      const rate = result.bytes / MB / result.seconds;
      results[name].push(rate);
      shares.push(
        `  ${name}: ${rate.toFixed(1)} MB/s, ${(result.rows / result.seconds).toFixed(0)} samples/s; ` +
          `hub ${did.seconds.toFixed(2)} s of processor for ${(did.bytes / MB).toFixed(0)} MB in ${did.requests} requests`,
      );
    }
  }
  print('throughput, MB/s of text (98 MB of English web text, window 10,000):');
  print(`  ours, tokens in the ring     ${median(results.tokens).toFixed(1)} (${shown(results.tokens, 1)})`);
  print(`  datasets + tokenizers        ${median(results.python).toFixed(1)} (${shown(results.python, 1)})`);
  print(
    `  ratio                        ${(median(results.tokens) / median(results.python)).toFixed(1)} (bar: 20)`,
  );
  print(
    `  ours, documents              ${median(results.documents).toFixed(1)} (${shown(results.documents, 1)})`,
  );
  print(`  datasets alone, arrow        ${median(results.arrow).toFixed(1)} (${shown(results.arrow, 1)})`);
  print(
    `  ratio                        ${(median(results.documents) / median(results.arrow)).toFixed(2)} (bar: 0.8)`,
  );
  for (const line of shares) print(line);
  await hub.close();
}

/** Frames into the native side, against JSON arrays into JavaScript; both from the same local files. */
async function frames(): Promise<void> {
  const folder = join(sharedData, 'web-text');
  const [ourRates, jsonRates]: [number[], number[]] = [[], []];
  for (let round = 0; round < 3; round++) {
    const result = await ours({ dataset: folder, tokenizer: null, window: 10_000 });
    ourRates.push(result.bytes / MB / result.seconds);
    const child = spawn(python, [join(here, 'stream/peer.py'), 'json', JSON.stringify({ dataset: folder })], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let [rest, bytes, first]: [Buffer[], number, number] = [[], 0, 0];
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      first ||= performance.now();
      let from = 0;
      for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
        const line = Buffer.concat([...rest, chunk.subarray(from, at)]);
        for (const text of JSON.parse(line.toString('utf8')) as string[]) bytes += Buffer.byteLength(text);
        rest = [];
        from = at + 1;
      }
      rest.push(chunk.subarray(from));
    }
    jsonRates.push(bytes / MB / ((performance.now() - first) / 1000));
  }
  print('frames into Rust against JSON arrays into JavaScript, local files, MB/s of text:');
  print(
    `  frames ${median(ourRates).toFixed(0)} (${shown(ourRates)}), JSON ${median(jsonRates).toFixed(0)} (${shown(jsonRates)})`,
  );
  print(`  ratio  ${(median(ourRates) / median(jsonRates)).toFixed(2)} (bar: 3)`);
}

async function resume(tokenizer: string): Promise<void> {
  const folder = await perturbed('one', 7, 1);
  const hub = await HubProcess.start({ repositories: { 'bench/one': folder } });
  process.env.HF_ENDPOINT = hub.url;
  const dataset = 'bench/one';
  const whole = 688 * MB;
  const until = await ours({ dataset, tokenizer, window: 10_000, bytes: 0.9 * whole });
  const again = await watched(hub, () =>
    ours({ dataset, tokenizer, window: 10_000, bytes: 1, state: until.state }),
  );
  const { phases, bytesAtFirst, rowsAtFirst } = again.result;
  const mean = until.bytes / until.rows;
  const bound = (10_000 + 2 * 1_000 * 4) * mean;
  print('resume at 90 % of one Parquet file of 688 MB of text, window 10,000:');
  print(
    `  ours: first batch after ${(phases.first_batch ?? 0).toFixed(2)} s of which the open dataset ${(phases.ready ?? 0).toFixed(2)} s; ` +
      `text read by then ${(bytesAtFirst / MB).toFixed(1)} MB, ${rowsAtFirst} rows (bound: a window and two row groups an open file, ${(bound / MB).toFixed(1)} MB); ` +
      `${(again.hub.bytes / MB).toFixed(1)} MB and ${again.hub.requests} requests of the hub, what was prefetched until it ended included`,
  );
  const child = spawn(
    python,
    [
      join(here, 'stream/peer.py'),
      'resume',
      JSON.stringify({ dataset, window: 10_000, rows: Math.round(0.9 * 7 * 26_033) }),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  await lines.next();
  const theirs = await watched(hub, async () => {
    child.stdin.end('go\n');
    return JSON.parse((await lines.next()).value ?? '{}') as PeerOutcome;
  });
  print(
    `  datasets' state_dict: first row after ${theirs.result.seconds.toFixed(2)} s; ` +
      `${(theirs.hub.bytes / MB).toFixed(1)} MB and ${theirs.hub.requests} requests`,
  );
  await hub.close();
}

async function memory(tokenizer: string): Promise<void> {
  const folder = await perturbed('gigabyte', 11, 4);
  const hub = await HubProcess.start({ repositories: { 'bench/gigabyte': folder } });
  process.env.HF_ENDPOINT = hub.url;
  const dataset = 'bench/gigabyte';
  const [half, bytes] = [500 * MB, 1000 * MB];
  const { stdout } = await run(
    process.execPath,
    [
      '-e',
      "console.log(/VmRSS:\\s+(\\d+)/.exec(require('fs').readFileSync('/proc/self/status', 'utf8'))[1])",
    ],
    {},
  );
  const bare = (Number(stdout) * 1024) / MB;
  const { peaks } = await ours({ dataset, tokenizer, window: 10_000, half, bytes });
  const theirs = await peer('arrow', { dataset, half, bytes });
  const node = peaks.map((p) => p.node / MB);
  const streamer = peaks.map((p) => p.streamer / MB);
  const alone = theirs.peaks.map((p) => p / MB);
  print('memory, peak resident MB, window 10,000, first and second 500 MB of text:');
  print(
    `  Node ${shown(node)} (Node alone ${bare.toFixed(0)}: ${(Math.max(...node) - bare).toFixed(0)} over it, bar 150); ` +
      `second / first ${((node[1] ?? 0) / (node[0] ?? 1)).toFixed(3)} (bar 1.05)`,
  );
  print(
    `  streamer ${shown(streamer)}; second / first ${((streamer[1] ?? 0) / (streamer[0] ?? 1)).toFixed(3)} (bar 1.05)`,
  );
  print(
    `  datasets alone ${shown(alone)}; streamer / datasets ${(Math.max(...streamer) / Math.max(...alone)).toFixed(3)} (bar 1.25)`,
  );
  await hub.close();
}

async function latency(tokenizer: string): Promise<void> {
  const many = join(scratch, 'many');
  await mkdir(join(many, 'data'), { recursive: true });
  const [small] = await readdir(join(sharedData, 'web-text/sample'), { recursive: true }).then((names) =>
    names.filter((name) => name.endsWith('.parquet')),
  );
  const tiny = join(scratch, 'tiny.parquet');
  await run(python, ['-c', tinyScript, join(sharedData, 'web-text/sample', small ?? ''), tiny], {});
  for (let i = 0; i < 20_000; i++)
    await cp(tiny, join(many, 'data', `part-${String(i).padStart(5, '0')}.parquet`));
  const hub = await HubProcess.start({
    repositories: { 'bench/text': join(sharedData, 'web-text'), 'bench/many': many },
    pageSize: 1000,
  });
  process.env.HF_ENDPOINT = hub.url;
  const first: Outcome[] = [];
  for (let i = 0; i < 3; i++)
    first.push(await ours({ dataset: 'bench/text', tokenizer, window: 10_000, bytes: 1 }));
  print('time to the first batch over the hub, seconds since the corpus was made (three runs):');
  for (const { phases } of first) {
    print(
      `  ${Object.entries(phases)
        .map(([name, at]) => `${name} ${at.toFixed(2)}`)
        .join(', ')}`,
    );
  }
  const theirs: number[] = [];
  const listed: Outcome[] = [];
  for (let i = 0; i < 3; i++) {
    listed.push(await ours({ dataset: 'bench/many', tokenizer, window: 1_000, bytes: 1 }));
    theirs.push((await peer('arrow', { dataset: 'bench/many', bytes: 1 })).first);
  }
  const our = listed.map(({ phases }) => phases.first_batch ?? 0);
  print(
    `of 20,000 files, window 1,000: first batch ${shown(our, 2)} s; datasets alone, first row ${shown(theirs, 2)} s; ` +
      `difference of medians ${(median(our) - median(theirs)).toFixed(2)} s (bar 3)`,
  );
  const paced = async (name: string) => {
    const { waits } = await ours({
      dataset: 'bench/text',
      tokenizer,
      window: 10_000,
      rate: 200_000,
      bytes: 60 * MB,
    });
    const at = (share: number) => waits[Math.min(waits.length - 1, Math.floor(share * waits.length))] ?? 0;
    print(
      `waits at 200,000 tokens a second, ${name}, ${waits.length} batches of 16,384: median ${at(0.5).toFixed(2)} ms, ` +
        `99.9th percentile ${at(0.999).toFixed(2)} ms (bar 5), longest ${at(1).toFixed(2)} ms`,
    );
  };
  await paced('local hub');
  const hiccups = [30, 60, 90].map((after) => ({ ranged: true, after, times: 1, fault: { delay: 2_000 } }));
  await hub.tell({ rules: [...hiccups, { ranged: true, fault: { delay: 200 } }] });
  await paced('200 ms a request and three hiccups of 2 s');
  await hub.close();
}

const tinyScript = `
import sys, pyarrow.parquet as pq
pq.write_table(pq.read_table(sys.argv[1], columns=["text"]).slice(0, 40), sys.argv[2], row_group_size=10)
`;

try {
  print(`Node ${process.version}, ${cpus()[0]?.model}, ${new Date().toISOString()}`);
  const tokenizer = await tokenizerOf(join(sharedData, 'web-text'));
  if (wants('throughput')) await throughput(tokenizer);
  if (wants('frames')) await frames();
  if (wants('resume')) await resume(tokenizer);
  if (wants('memory')) await memory(tokenizer);
  if (wants('latency')) await latency(tokenizer);
} finally {
  await rm(scratch, { recursive: true, force: true, maxRetries: 5 });
}
process.exit(0);
