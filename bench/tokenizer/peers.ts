/** The sides of bench/tokenizer.ts and how each is run: a process of its own, pinned to cores. */
import { execFile } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { python } from '../../__test__/support/python.js';
import { packages } from './inputs.js';

const here = dirname(fileURLToPath(import.meta.url));
const run = promisify(execFile);

/** One measurement to take. */
export interface Work {
  /** Directory of a tokenizer. */
  tokenizer: string;
  /** A flat file. */
  documents: string;
  /** Text to take of it, at least, in whole documents. */
  bytes: number;
  passes: number;
  /** Whether to tell the ids, by document. */
  digest: boolean;
  threads: number;
  /** Cores to pin to, as `taskset -c` takes them. */
  cores: string;
  /** Seconds after which it is given up; default: none. */
  limit?: number;
}

export interface Pass {
  /** From the call until the ids are there. */
  seconds: number;
  /** Of the process, on all its threads. */
  cpu: number;
}

export interface Outcome {
  version: string;
  bytes: number;
  documents: number;
  tokens?: number;
  /** Seconds to load the tokenizer. */
  load: number;
  passes: Pass[];
  digests?: string[];
}

export interface Side {
  name: string;
  /** So slow that it gets one warm pass, and none on the largest data. */
  slow: boolean;
  measure(work: Work): Promise<Outcome>;
}

/**
 * Writes as much memory as any side takes and lets go of it. A virtual machine whose host takes back what lies free pays
 * ten times as much for the first write to a page then, which would hit the sides as chance has it.
 */
const warmMemory = (cores: string) =>
  run('taskset', ['-c', cores, process.execPath, '--eval', 'Buffer.alloc(1_500_000_000, 1)']);

async function pinned(command: string, args: string[], { cores, limit = 0 }: Work): Promise<Outcome> {
  await warmMemory(cores);
  const { stdout } = await run('taskset', ['-c', cores, command, ...args], {
    maxBuffer: 1 << 28,
    timeout: limit * 1000,
    killSignal: 'SIGKILL',
  });
  return JSON.parse(stdout) as Outcome;
}

export const ours: Side = {
  name: 'candlewick',
  slow: false,
  measure: (work) => pinned(process.execPath, [join(here, 'ours.mjs'), JSON.stringify(work)], work),
};

const wanted = [
  { name: 'gigatoken', slow: false, spec: 'gigatoken==0.10.0', options: [] },
  { name: 'tokenizers-1.0', slow: false, spec: 'tokenizers>=1.0.0rc0', options: ['--pre', '--no-deps'] },
  { name: 'tiktoken', slow: true, spec: 'tiktoken==0.14.0', options: [] },
  { name: 'tokenizers-0.23', slow: true, spec: 'tokenizers==0.23.3', options: ['--no-deps'] },
] as const;

export const sideNames = [ours.name, ...wanted.map(({ name }) => name)];

/** The sides with these names, ours first; what cannot be installed is told to `missing` and left out. */
export async function sides(
  names: readonly string[],
  missing: (name: string, error: unknown) => void,
): Promise<Side[]> {
  const found: Side[] = names.includes(ours.name) ? [ours] : [];
  for (const { name, slow, spec, options } of wanted) {
    if (!names.includes(name)) continue;
    try {
      const folder = await packages(spec, options);
      const peer = name.replace(/-.*/, '');
      found.push({
        name,
        slow,
        measure: (work) =>
          pinned(python, [join(here, 'peer.py'), JSON.stringify({ ...work, peer, packages: folder })], work),
      });
    } catch (error) {
      missing(name, error);
    }
  }
  return found;
}

/** What two spinning threads do, as a multiple of what one does. */
export async function spinningGain(cores: string): Promise<number> {
  const { stdout } = await run('taskset', ['-c', cores, process.execPath, join(here, 'spin.mjs'), '1']);
  const { one, two } = JSON.parse(stdout) as { one: number; two: number };
  return two / one;
}
