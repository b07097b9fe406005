/** `train-tokenizer-streaming` over a hub on this machine, beside draining the same stream. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HubProcess } from '../../__test__/support/hub-start.js';
import { python, sharedData } from '../../__test__/support/python.js';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '../..');
const VOCAB_SIZE = '50257';
/** Times that the shared text comes with other words exchanged; further copies are of these files. */
const PERTURBED = 4;
const FILES = 8;

interface Run {
  last: Record<string, number>;
  seconds: number;
  /** Kilobytes that Node held at most. */
  peak: number;
}

/** Runs a program to its end. Its last line of stdout is JSON. */
async function program(args: string[], env: Record<string, string>): Promise<Run> {
  const began = performance.now();
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let peak = 0;
  const watch = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      peak = Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? peak);
    } catch {
      // It has just ended.
    }
  }, 100);
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  clearInterval(watch);
  if (code !== 0) throw new Error(stderr);
  const last = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<string, number>;
  return { last, seconds: (performance.now() - began) / 1000, peak };
}

/** Measures `rounds` times both, one after the other. */
export async function streamed(scratch: string, documents: number, rounds: number): Promise<void> {
  const folder = join(scratch, 'text');
  const perturb = spawn(
    python,
    [
      join(root, 'bench/stream/perturbed.py'),
      join(sharedData, 'web-text'),
      join(folder, 'data'),
      String(PERTURBED),
      String(FILES),
    ],
    { stdio: 'inherit' },
  );
  await once(perturb, 'close');
  const files = (await readdir(join(folder, 'data'))).sort();
  const copies: Record<string, string> = {};
  // 26,000 documents a time.
  for (let copy = 1; copy * PERTURBED * 26_000 < documents; copy++) {
    for (const file of files) copies[`data/copy-${String(copy).padStart(3, '0')}-${file}`] = `data/${file}`;
  }
  const hub = await HubProcess.start({ repositories: { 'bench/text': { folder, copies } } });
  const env = {
    HF_ENDPOINT: hub.url,
    HF_HOME: join(scratch, 'hf'),
    CANDLEWICK_PYTHON: python,
    HF_HUB_DISABLE_PROGRESS_BARS: '1',
  };
  try {
    for (let round = 1; round <= rounds; round++) {
      const drained = await program([join(here, 'drain.mjs'), 'bench/text', String(documents)], env);
      const output = join(scratch, 'tokenizer');
      await rm(output, { recursive: true, force: true });
      const train = [
        '--dataset',
        'bench/text',
        '--max-samples',
        String(documents),
        '--vocab-size',
        VOCAB_SIZE,
      ];
      const trained = await program(
        [join(root, 'bin/train-tokenizer-streaming.js'), ...train, '--output', output, '--json', '--quiet'],
        env,
      );
      console.log(
        `round ${round}: drained ${drained.last['documents']} documents, ${((drained.last['bytes'] ?? 0) / 1e9).toFixed(2)} GB, ` +
          `in ${drained.seconds.toFixed(1)} s; trained on ${trained.last['documents']} in ${trained.seconds.toFixed(1)} s: ` +
          `${(trained.seconds / drained.seconds).toFixed(2)} times; Node's peak ${(trained.peak / 1e3).toFixed(0)} MB ` +
          `(drained: ${(drained.peak / 1e3).toFixed(0)} MB)`,
      );
    }
  } finally {
    await hub.close();
  }
}
