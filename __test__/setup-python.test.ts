import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { setUpPython } from '../src/setup/index.js';
import { environmentPython, environmentReady, findPython, makeEnvironment } from '../src/setup/python.mjs';
import { run } from '../src/setup/run.mjs';

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'candlewick-setup-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A program on a PATH that holds nothing else. */
function fake(name: string, script: string): NodeJS.ProcessEnv {
  const bin = join(folder, 'bin');
  mkdirSync(bin, { recursive: true });
  writeFileSync(join(bin, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(bin, name), 0o755);
  return { PATH: bin };
}

/** A Python as far as the probe can see. */
function fakePython(
  name: string,
  version: [number, number, number],
  missing: string[] = [],
): NodeJS.ProcessEnv {
  return fake(name, `echo '${JSON.stringify({ version, executable: `/fake/${name}`, missing })}'`);
}

describe('finding a Python', () => {
  it('names the cure where there is none', async () => {
    await expect(findPython({ PATH: join(folder, 'nothing') })).rejects.toMatchObject({
      code: 'PYTHON_NOT_FOUND',
      message: 'no python3 on PATH',
      hint: expect.stringContaining('install Python 3.10 or newer'),
    });
  });

  it('refuses one that is too old and says which it is', async () => {
    await expect(findPython(fakePython('python3', [3, 9, 2]))).rejects.toMatchObject({
      code: 'PYTHON_NOT_FOUND',
      message: 'python3 is Python 3.9.2; 3.10 or newer is needed',
      hint: expect.stringContaining('CANDLEWICK_PYTHON'),
    });
  });

  it('takes a newer one beside a python3 that is too old', async () => {
    fakePython('python3', [3, 6, 8]);
    const env = fakePython('python3.12', [3, 12, 1]);
    expect(await findPython(env)).toMatchObject({ version: '3.12.1', path: '/fake/python3.12' });
  });

  it('refuses one without ensurepip, and with apt names the package that has it', async () => {
    const env = fakePython('python3', [3, 11, 2], ['ensurepip']);
    fake('apt-get', '');
    await expect(findPython(env)).rejects.toMatchObject({
      message: 'Python 3.11.2 at /fake/python3 has no module ensurepip',
      hint: expect.stringMatching(
        process.platform === 'linux' ? /apt-get install -y python3.11-venv/ : /venv/,
      ),
    });
  });

  it('asks only the one that CANDLEWICK_PYTHON names', async () => {
    const env = fakePython('python3', [3, 12, 1]);
    await expect(findPython({ ...env, CANDLEWICK_PYTHON: '/no/such/python' })).rejects.toMatchObject({
      message: 'CANDLEWICK_PYTHON is /no/such/python, and that does not start as a Python',
    });
  });

  it('is not taken in by a program that prints something else', async () => {
    fake('python3', 'echo hello');
    const env = fakePython('python3.13', [3, 13, 0]);
    expect(await findPython(env)).toMatchObject({ version: '3.13.0' });
  });

  it('finds the one of this machine', async () => {
    const python = await findPython();
    expect(python.missing).toEqual([]);
    expect(existsSync(python.path)).toBe(true);
  });
});

describe('making the environment', () => {
  function requirements(text: string): string {
    const file = join(folder, 'requirements.txt');
    writeFileSync(file, text);
    return file;
  }

  /** A Python that makes environments of itself and installs nothing: quick. */
  function quickPython(): NodeJS.ProcessEnv {
    const probe = JSON.stringify({
      version: [3, 12, 1],
      executable: join(folder, 'bin/python3'),
      missing: [],
    });
    return {
      ...fake(
        'python3',
        `case "$1 $2" in
           "-m venv") /bin/mkdir -p "$4/bin" && /bin/cp "$0" "$4/bin/python" && echo > "$4/pyvenv.cfg" ;;
           "-m pip") ;;
           *) echo '${probe}' ;;
         esac`,
      ),
    };
  }

  it('makes it once, leaves it alone, and installs again when the requirements change', async () => {
    const dir = join(folder, 'deep/er/venv');
    const file = requirements('# nothing\n');
    const first = await makeEnvironment({ dir, requirements: file });
    expect(first).toEqual({ python: environmentPython(dir), made: true });
    expect((await run(first.python, ['-c', 'import sys; print(sys.prefix)'])).stdout.trim()).toBe(dir);

    const said: string[] = [];
    const say = (what: string): void => void said.push(what);
    expect((await makeEnvironment({ dir, requirements: file, say })).made).toBe(false);
    expect(said).toEqual([]);

    requirements('# nothing, said otherwise\n');
    expect(await environmentReady(dir, file)).toBe(false);
    expect((await makeEnvironment({ dir, requirements: file, say })).made).toBe(true);
    expect(said).toEqual(['pip install of the pinned requirements']);

    // One that cannot be had: the environment is no longer finished, and says so.
    requirements(`${join(folder, 'no-such-wheel-1-py3-none-any.whl')}\n`);
    await expect(makeEnvironment({ dir, requirements: file })).rejects.toMatchObject({
      code: 'PYTHON_PACKAGE_MISSING',
      message: expect.stringContaining('no-such-wheel'),
      hint: expect.stringContaining('PIP_INDEX_URL'),
    });
    expect(await environmentReady(dir, file)).toBe(false);
  });

  it('finishes what was stopped between its two steps', async () => {
    const dir = join(folder, 'venv');
    const file = requirements('# nothing\n');
    const env = quickPython();
    const interrupt = new AbortController();
    const say = (what: string): void => {
      if (what.startsWith('pip')) interrupt.abort();
    };
    const stopped = makeEnvironment({ dir, requirements: file, env, signal: interrupt.signal, say });
    await expect(stopped).rejects.toMatchObject({ code: 'ABORTED' });
    expect(await environmentReady(dir, file)).toBe(false);
    expect((await makeEnvironment({ dir, requirements: file, env })).made).toBe(true);
  });

  it('makes a half-made environment anew', async () => {
    const dir = join(folder, 'venv');
    mkdirSync(join(dir, 'bin'), { recursive: true });
    writeFileSync(join(dir, 'pyvenv.cfg'), 'home = /nowhere\n');
    writeFileSync(join(dir, 'bin/python'), 'not a program');
    const { made, python } = await makeEnvironment({ dir, requirements: requirements('# nothing\n') });
    expect(made).toBe(true);
    expect((await run(python, ['-m', 'pip', '--version'])).code).toBe(0);
  });

  it('touches no folder that is something else', async () => {
    const dir = join(folder, 'photos');
    mkdirSync(dir);
    writeFileSync(join(dir, 'cat.jpg'), 'meow');
    await expect(makeEnvironment({ dir, requirements: requirements('') })).rejects.toMatchObject({
      code: 'OUTPUT_IN_USE',
    });
    expect(readdirSync(dir)).toEqual(['cat.jpg']);
  });
});

it('a failure reaches programs as one of our errors', async () => {
  writeFileSync(join(folder, 'cat.jpg'), 'meow');
  await expect(setUpPython({ dir: folder })).rejects.toMatchObject({
    name: 'ConfigurationError',
    code: 'OUTPUT_IN_USE',
    exitCode: 2,
  });
});
