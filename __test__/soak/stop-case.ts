/**
 * Runs that are stopped (SIGTERM) or killed (SIGKILL) at random, in every phase: on the n-th line of a kind that
 * `train-streaming --json` prints, at once or a little later. A case is a function of its seed and ends when the run has
 * come to its end: with the losses of a run that nothing happened to.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { CheckpointStore, verify } from '../../src/run/index.js';
import { losses } from '../support/program.js';
import { python, repository } from '../support/python.js';
import { Random } from './random.js';

export type Strike = 'SIGTERM' | 'SIGKILL';

/** What the cases of a test share: data, a configuration, and the losses of the undisturbed run. */
export interface StopBench {
  folder: string;
  config: string;
  expected: string[];
}

/** Kinds of lines in the order in which a run prints them, and how many of each. */
const kinds = {
  data: 1,
  'held-out': 1,
  tokenizer: 1,
  progress: 2,
  model: 1,
  start: 1,
  checkpoint: 5,
  step: 16,
  eval: 4,
  sample: 4,
} as const;
type Kind = keyof typeof kinds;

/** In a leg that goes on there is no tokenizer to train. */
const resumedKinds: readonly Kind[] = [
  'data',
  'held-out',
  'model',
  'start',
  'checkpoint',
  'step',
  'eval',
  'sample',
];
const allKinds = Object.keys(kinds) as Kind[];
/** What comes before the first step. */
const setupKinds = allKinds.slice(0, allKinds.indexOf('start'));
const LATEST_MS = 300;

export async function makeStopBench(folder: string): Promise<StopBench> {
  const data = join(folder, 'data');
  await mkdir(data, { recursive: true });
  const random = new Random('stops');
  const words = ['tide', 'lamp', 'größer', '東京', 'harbour', 'slow', 'the', 'of', 'and', 'glass'];
  const documents = Array.from({ length: 400 }, () => ({
    text: Array.from({ length: 5 + random.below(80) }, () => random.of(words)).join(' '),
  }));
  await writeFile(join(data, 'a.jsonl'), documents.map((row) => `${JSON.stringify(row)}\n`).join(''));
  const config = join(folder, 'stops.yaml');
  await writeFile(
    config,
    `tokenizer: {train: {max_samples: 300, vocab_size: 290}}
model: {architecture: qwen3, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2}
data: {dataset: ${data}, sequence_length: 64, shuffle_buffer_size: 50}
training: {global_batch_size: 8, micro_batch_size: 4, max_steps: 40, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: 7}
evaluation: {every_steps: 10, documents: 10, prompts: [the], sample_tokens: 40}
`,
  );
  const bench = { folder, config, expected: [] as string[] };
  const { end, stderr } = await leg(bench, 'whole', null);
  if (end !== 0) throw new Error(`the undisturbed run ended with ${end}: ${stderr}`);
  bench.expected = await losses(folder, 'whole');
  return bench;
}

/** Strikes runs `count` times, with what `strike` says. Rejects with what was found to be wrong. Returns where it struck. */
export async function runStops(
  seed: number,
  strike: Strike,
  count: number,
  bench: StopBench,
): Promise<Map<Kind, number>> {
  const random = new Random(`stops|${strike}|${seed}`);
  const struck = new Map<Kind, number>();
  let [run, isNew] = [0, true];
  const output = () => `${strike}-${seed}-${run}`;
  for (let left = count; left > 0; ) {
    const kind = random.of(!isNew ? resumedKinds : random.oneIn(2) ? setupKinds : allKinds);
    const blow = {
      strike,
      kind,
      count: 1 + random.below(kinds[kind]),
      after: random.oneIn(2) ? 0 : random.below(LATEST_MS),
    };
    const what = `seed ${seed}, ${strike} ${blow.after} ms after ${kind} ${blow.count} of ${output()}`;
    const result = await leg(bench, output(), blow);
    if (result.struck) {
      left -= 1;
      struck.set(kind, (struck.get(kind) ?? 0) + 1);
      await check(bench, output(), strike, result).catch((cause: unknown) => {
        throw new Error(
          `${what}: ${cause instanceof Error ? cause.message : String(cause)}\n${result.stderr}`,
        );
      });
      isNew = false;
      // Now and then another run begins, so that its beginning is struck too.
      if (left > 0 && !random.oneIn(4)) continue;
      const { end, stderr } = await leg(bench, output(), null);
      if (end !== 0)
        throw new Error(`seed ${seed}: the last leg of ${output()} ended with ${end}: ${stderr}`);
    } else if (result.end !== 0) {
      throw new Error(`${what}: ended with ${result.end}: ${result.stderr}`);
    }
    // Where there was no such line any more, it has come to its end by itself.
    await isExact(bench, output());
    run += 1;
    isNew = true;
  }
  return struck;
}

interface Blow {
  strike: Strike;
  kind: Kind;
  /** So many lines of that kind, from 1. */
  count: number;
  /** Milliseconds later. */
  after: number;
}

interface Leg {
  end: number | string;
  stderr: string;
  /** A line of it is of this type. */
  lines: { type: string; step?: number; resumed_from?: { step: number } | null }[];
  /** Whether the blow came before it had ended by itself. */
  struck: boolean;
  /** Whether it had said that it was done. */
  wasDone: boolean;
}

async function leg({ folder, config }: StopBench, output: string, blow: Blow | null): Promise<Leg> {
  const argv = ['bin/train-streaming.js', '--config', config, '--output', join(folder, output), '--json'];
  const child = spawn(process.execPath, argv, {
    cwd: repository,
    // Its streamers inherit the mark by which they are known.
    env: { ...process.env, CANDLEWICK_PYTHON: python, STOP_CASE: mark(join(folder, output)) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const result: Leg = { end: 'nothing', stderr: '', lines: [], struck: false, wasDone: false };
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    result.stderr += text;
  });
  let seen = 0;
  let timer: NodeJS.Timeout | undefined;
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Leg['lines'][number] & { phase?: string };
    result.lines.push(line);
    if (blow === null || (line.phase ?? line.type) !== blow.kind) return;
    seen += 1;
    if (seen !== blow.count) return;
    const strike = () => {
      result.wasDone = result.lines.at(-1)?.type === 'done';
      result.struck = child.kill(blow.strike);
    };
    if (blow.after === 0) strike();
    else timer = setTimeout(strike, blow.after);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  clearTimeout(timer);
  result.end = code ?? signal ?? 'nothing';
  // One that has ended takes signals until its end is noticed: what ended well was not killed.
  if (blow?.strike === 'SIGKILL' && result.end === 0) result.struck = false;
  return result;
}

/** What a run that was struck has to leave. */
async function check({ folder }: StopBench, output: string, strike: Strike, result: Leg): Promise<void> {
  const directory = join(folder, output);
  const checkpoints = join(directory, 'checkpoints');
  const saved = result.lines.flatMap(({ type, step }) => (type === 'checkpoint' ? [step ?? 0] : [])).at(-1);
  const resumed = result.lines.find(({ type }) => type === 'start')?.resumed_from?.step;
  const newest = await new CheckpointStore(checkpoints).newest(() => undefined);
  const known = saved ?? resumed;
  if (known !== undefined && (newest === null || newest.step < known))
    throw new Error(`a checkpoint of step ${known} was told, and the newest good one is ${newest?.step}`);
  await nobodyIsLeft(directory);
  if (strike === 'SIGKILL') {
    if (result.end !== 'SIGKILL') throw new Error(`it ended with ${result.end}`);
    return;
  }
  if (result.end !== 143 && !(result.wasDone && [0, 'SIGTERM'].includes(result.end)))
    throw new Error(`it ended with ${result.end}`);
  if (existsSync(join(directory, 'run.lock'))) throw new Error('its lock is left');
  if (!existsSync(directory)) return;
  const files = await readdir(directory, { recursive: true });
  const half = files.filter((name) => name.endsWith('.tmp'));
  if (half.length > 0) throw new Error(`half written: ${half.join(', ')}`);
  for (const name of existsSync(checkpoints) ? await readdir(checkpoints) : []) {
    const found = await verify(join(checkpoints, name));
    if ('reason' in found) throw new Error(`${name}: ${found.reason}`);
  }
  const lastStep = result.lines.flatMap(({ type, step }) => (type === 'step' ? [step ?? 0] : [])).at(-1);
  if (lastStep !== undefined && (newest?.step ?? -1) < lastStep)
    throw new Error(`step ${lastStep} was made, and ${newest?.step} was saved`);
}

/** What the processes of a run have in their environment. */
const mark = (directory: string) => `${process.pid}:${directory}`;

/** Waits until no process of the run is there any more: a streamer goes when its stdin ends. */
async function nobodyIsLeft(directory: string): Promise<void> {
  const until = Date.now() + 5_000;
  for (;;) {
    const left = readdirSync('/proc').filter((pid) => {
      try {
        if (!/^\d+$/.test(pid)) return false;
        return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(`STOP_CASE=${mark(directory)}\0`);
      } catch {
        // It ended while it was looked at.
        return false;
      }
    });
    if (left.length === 0) return;
    if (Date.now() > until) throw new Error(`left running: ${left.join(', ')}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function isExact({ folder, expected }: StopBench, output: string): Promise<void> {
  const found = await losses(folder, output);
  const at = expected.findIndex((row, i) => row !== found[i]);
  if (at >= 0 || found.length !== expected.length)
    throw new Error(`${output}: step ${at + 1} is ${found[at]}, not ${expected[at]}; ${found.length} steps`);
}
