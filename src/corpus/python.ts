/** Which Python runs the streamer. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorFor } from '../errors.js';
import { environmentPython, oldestPython, olderThan } from '../setup/python.mjs';

/** What the search may use; all of it optional. */
export interface PythonSearch {
  /** What the user asked for (`--python`). */
  python?: string;
  /** Folder whose `.venv` is looked at; default: the current one. */
  cwd?: string;
  /** Environment variables; default: this process's. */
  env?: NodeJS.ProcessEnv;
}

/** A Python that starts and is new enough. */
export interface Python {
  /** What to spawn: a path, or a name to be found on PATH. */
  path: string;
  /** For instance `3.11.7`. */
  version: string;
  /** Why this one: `--python`, `CANDLEWICK_PYTHON`, `VIRTUAL_ENV`, … */
  from: string;
}

interface Candidate {
  path: string;
  from: string;
  /** The user named it: nothing else will do. */
  asked: boolean;
}

const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const probeTimeout = 30_000;

/**
 * The Python to use: the one asked for, `CANDLEWICK_PYTHON`, the active environment, `.venv` here, the package's own
 * `.venv`, `python3`, `python`. The first two are final where they are given; of the others the first that is new
 * enough is taken. Throws `PYTHON_NOT_FOUND`.
 */
export async function findPython(search: PythonSearch = {}): Promise<Python> {
  const env = search.env ?? process.env;
  const refused: string[] = [];
  for (const { path, from, asked } of candidates(search, env)) {
    const version = await versionOf(path, env);
    if (version !== null && !olderThan(version, oldestPython)) return { path, version, from };
    const why = version === null ? 'does not start as a Python' : `is Python ${version}`;
    if (asked) {
      const hint = `give ${from} the path of a Python ${oldestPython} or newer, or leave it out`;
      throw errorFor('PYTHON_NOT_FOUND', `${from} names ${path}, which ${why}`, hint);
    }
    refused.push(`${path} ${why}`);
  }
  throw errorFor(
    'PYTHON_NOT_FOUND',
    `no Python ${oldestPython} or newer was found (${refused.join('; ')})`,
    `install Python ${oldestPython} or newer and run \`npx candlewick setup\`, or set CANDLEWICK_PYTHON to its path`,
  );
}

function candidates({ python, cwd }: PythonSearch, env: NodeJS.ProcessEnv): Candidate[] {
  if (python) return [{ path: python, from: '--python', asked: true }];
  if (env.CANDLEWICK_PYTHON) return [{ path: env.CANDLEWICK_PYTHON, from: 'CANDLEWICK_PYTHON', asked: true }];
  const environments = [
    { dir: env.VIRTUAL_ENV, from: 'VIRTUAL_ENV' },
    { dir: join(cwd ?? process.cwd(), '.venv'), from: './.venv' },
    { dir: join(packageRoot, '.venv'), from: "the package's .venv" },
  ];
  const found: Candidate[] = [];
  for (const { dir, from } of environments) {
    if (!dir) continue;
    const path = environmentPython(dir);
    if (existsSync(path) && !found.some((other) => other.path === path))
      found.push({ path, from, asked: false });
  }
  return [...found, ...['python3', 'python'].map((path) => ({ path, from: 'PATH', asked: false }))];
}

/** The version that an interpreter reports; null for whatever is no Python. */
function versionOf(path: string, env: NodeJS.ProcessEnv): Promise<string | null> {
  return new Promise((resolve) => {
    const probe = 'import sys; sys.stdout.write("python %d.%d.%d" % sys.version_info[:3])';
    const child = spawn(path, ['-c', probe], {
      env,
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: probeTimeout,
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    child.on('error', () => resolve(null));
    child.on('close', () => resolve(/^python (\d+\.\d+\.\d+)$/.exec(output)?.[1] ?? null));
  });
}
