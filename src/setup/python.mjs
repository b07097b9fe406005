/**
 * Finds a Python and makes the virtual environment that the streamer runs in. Plain JavaScript without
 * dependencies: `npm start` uses it before anything is installed or compiled, `candlewick setup` afterwards.
 */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { installCommand } from './package-manager.mjs';
import { run } from './run.mjs';

const windows = process.platform === 'win32';
/** Oldest Python that the pinned requirements run on. */
export const oldestPython = '3.10';
/** Written last: an environment without it is unfinished, whatever else it holds. */
const stampName = 'candlewick.json';

// Runs on any Python, 2 included, so that a Python that is too old can say so.
const probe = `
import json, sys
def has(name):
    try:
        __import__(name)
        return True
    except Exception:
        return False
print(json.dumps({"version": list(sys.version_info[:3]), "executable": sys.executable,
                  "missing": [name for name in ("venv", "ensurepip") if not has(name)]}))
`;

/** A failure of set-up: what happened, and what to do next. */
export class SetupError extends Error {
  /**
   * @param {string} code a code of `errors.ts`
   * @param {string} message
   * @param {string} hint
   */
  constructor(code, message, hint) {
    super(message);
    this.name = 'SetupError';
    this.code = code;
    this.hint = hint;
  }
}

/**
 * The first Python that can make the environment: `CANDLEWICK_PYTHON` where it is set and nothing else then,
 * else `python3`, else a `python3.N` or `python` that is new enough.
 *
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {Promise<import('./python.mjs').Interpreter>}
 */
export async function findPython(env = process.env) {
  const asked = env.CANDLEWICK_PYTHON;
  const names = asked ? [asked] : candidates();
  let refused = null;
  for (const name of names) {
    const found = await interpreter(name, env);
    if (found === null) continue;
    const why = whyNot(found, env);
    if (why === null) return found;
    // The first Python found is the one people mean: its trouble is told, a later one may still do.
    refused ??= why;
  }
  if (refused) throw refused;
  const cure = installCommand(
    {
      apt: 'python3 python3-venv',
      dnf: 'python3',
      apk: 'python3',
      pacman: 'python',
      zypper: 'python3',
      brew: 'python@3.13',
      winget: 'Python.Python.3.13',
    },
    env,
  );
  throw new SetupError(
    'PYTHON_NOT_FOUND',
    asked ? `CANDLEWICK_PYTHON is ${asked}, and that does not start as a Python` : 'no python3 on PATH',
    asked
      ? `set CANDLEWICK_PYTHON to the path of a Python ${oldestPython} or newer, or unset it`
      : `install Python ${oldestPython} or newer: ${cure ?? 'https://www.python.org/downloads/'}`,
  );
}

function candidates() {
  if (windows) return ['python3', 'python', 'py'];
  const newestFirst = [14, 13, 12, 11, 10].map((minor) => `python3.${minor}`);
  return ['python3', ...newestFirst, 'python'];
}

async function interpreter(name, env) {
  const result = await run(name, ['-c', probe], { env, timeout: 30_000 });
  if (result.code !== 0) return null;
  try {
    const { version, executable, missing } = JSON.parse(result.stdout);
    return { path: executable || name, name, version: version.join('.'), missing };
  } catch {
    // It printed something that is not the probe's line: whatever it is, it is no Python.
    return null;
  }
}

function whyNot(found, env) {
  const short = found.version.split('.').slice(0, 2).join('.');
  if (olderThan(found.version, oldestPython)) {
    const cure = installCommand(
      { apt: 'python3.12 python3.12-venv', dnf: 'python3.12', brew: 'python@3.13' },
      env,
    );
    return new SetupError(
      'PYTHON_NOT_FOUND',
      `${found.name} is Python ${found.version}; ${oldestPython} or newer is needed`,
      `install a newer one (${cure ?? 'https://www.python.org/downloads/'}) and set CANDLEWICK_PYTHON to its path`,
    );
  }
  if (found.missing.length > 0) {
    const cure = installCommand(
      { apt: `python${short}-venv`, dnf: 'python3-pip', zypper: 'python3-pip' },
      env,
    );
    return new SetupError(
      'PYTHON_NOT_FOUND',
      `Python ${found.version} at ${found.path} has no module ${found.missing.join(' and no ')}`,
      cure ?? 'install the part of Python that makes virtual environments (venv with ensurepip)',
    );
  }
  return null;
}

/**
 * @param {string} version
 * @param {string} least
 * @returns {boolean}
 */
export function olderThan(version, least) {
  const [a, b] = [version, least].map((text) =>
    text.split('.').map((part) => Number.parseInt(part, 10) || 0),
  );
  for (let i = 0; i < b.length; i++) if ((a[i] ?? 0) !== b[i]) return (a[i] ?? 0) < b[i];
  return false;
}

/**
 * @param {string} dir
 * @returns {string} the interpreter of the environment in `dir`
 */
export function environmentPython(dir) {
  return windows ? join(dir, 'Scripts', 'python.exe') : join(dir, 'bin', 'python');
}

/**
 * Whether the environment in `dir` was finished with exactly these requirements.
 *
 * @param {string} dir
 * @param {string} requirements path of the requirements file
 * @returns {Promise<boolean>}
 */
export async function environmentReady(dir, requirements) {
  if (!existsSync(environmentPython(dir))) return false;
  try {
    const stamp = JSON.parse(await readFile(join(dir, stampName), 'utf8'));
    return stamp.requirements === (await digest(requirements));
  } catch {
    // No stamp, or half a stamp: unfinished.
    return false;
  }
}

/**
 * Makes the environment in `dir` and installs the pinned requirements, or leaves a finished one alone. A stop at
 * any point leaves a folder that the next call finishes or makes anew.
 *
 * @param {import('./python.mjs').EnvironmentOptions} options
 * @returns {Promise<import('./python.mjs').Environment>}
 */
export async function makeEnvironment({
  dir: folder,
  requirements,
  env = process.env,
  signal,
  say = () => {},
}) {
  const dir = resolve(folder);
  const python = environmentPython(dir);
  if (await environmentReady(dir, requirements)) return { python, made: false };
  if (existsSync(dir) && readdirSync(dir).length > 0 && !existsSync(join(dir, 'pyvenv.cfg'))) {
    throw new SetupError(
      'OUTPUT_IN_USE',
      `${dir} is not empty and no virtual environment`,
      'name another folder with --venv, or remove this one',
    );
  }
  await rm(join(dir, stampName), { force: true });
  if (!(await usable(dir, env))) {
    const base = await findPython(env);
    say(`python -m venv with Python ${base.version}`);
    try {
      await mkdir(dirname(dir), { recursive: true });
    } catch (error) {
      throw new SetupError(
        'NOT_WRITABLE',
        `cannot make ${dirname(dir)}: ${error.message}`,
        'choose another --venv',
      );
    }
    const made = await run(base.path, ['-m', 'venv', '--clear', dir], { env, signal });
    if (made.stopped) throw stopped();
    if (made.code !== 0) {
      throw new SetupError(
        'PYTHON_NOT_FOUND',
        `${base.path} -m venv failed: ${lastLines(made)}`,
        'check that the folder can be written and that this Python has venv and ensurepip',
      );
    }
  }
  say('pip install of the pinned requirements');
  await install(python, ['-r', requirements], 'the requirements', { env, signal });
  const stamp = { requirements: await digest(requirements) };
  await writeFile(join(dir, stampName), `${JSON.stringify(stamp)}\n`);
  return { python, made: true };
}

/**
 * Has pip install something into an environment.
 *
 * @param {string} python the environment's interpreter
 * @param {string[]} wanted what pip is told to install
 * @param {string} name what that is in a message
 * @param {{ env?: NodeJS.ProcessEnv, signal?: AbortSignal }} [options]
 * @returns {Promise<void>}
 */
export async function install(python, wanted, name, { env = process.env, signal } = {}) {
  const installed = await run(
    python,
    ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', ...wanted],
    { env: { ...env, PIP_REQUIRE_VIRTUALENV: '1' }, signal },
  );
  if (installed.stopped) throw stopped();
  if (installed.code !== 0) {
    throw new SetupError(
      'PYTHON_PACKAGE_MISSING',
      `pip could not install ${name}: ${lastLines(installed)}`,
      'pip needs a package index: check the network, a proxy (HTTPS_PROXY) or a mirror (PIP_INDEX_URL), then repeat',
    );
  }
}

/** Whether requirements can be installed into it as it is; one that is broken or half made is made anew. */
async function usable(dir, env) {
  const python = environmentPython(dir);
  if (!existsSync(python)) return false;
  const found = await interpreter(python, env);
  if (found === null) return false;
  if (olderThan(found.version, oldestPython)) {
    // It works, so somebody may still need it: not ours to replace.
    throw new SetupError(
      'PYTHON_NOT_FOUND',
      `the environment in ${dir} runs Python ${found.version}; ${oldestPython} or newer is needed`,
      'remove it, or name another folder with --venv',
    );
  }
  return (await run(python, ['-m', 'pip', '--version'], { env, timeout: 60_000 })).code === 0;
}

async function digest(file) {
  return createHash('sha256')
    .update(await readFile(file))
    .digest('hex');
}

function lastLines({ output, error }) {
  if (error) return error.message;
  return output.trim().split('\n').slice(-6).join('\n');
}

function stopped() {
  return new SetupError('ABORTED', 'stopped', 'run it again: it goes on from what is finished');
}
