/** Which Python is chosen. */
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findPython } from '../src/corpus/python.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-python-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

/** A program that answers like a Python of this version. */
async function pretend(path: string, version: string): Promise<string> {
  const file = join(folder, path);
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, `#!/bin/sh\nprintf 'python ${version}'\n`);
  await chmod(file, 0o755);
  return file;
}

describe('the Python', () => {
  it('is the one asked for, then CANDLEWICK_PYTHON, VIRTUAL_ENV, ./.venv, the PATH', async () => {
    const asked = await pretend('asked', '3.13.1');
    const variable = await pretend('variable', '3.13.2');
    const active = await pretend('active/bin/python', '3.13.3');
    const near = await pretend('here/.venv/bin/python', '3.13.4');
    await pretend('bin/python3', '3.13.5');
    const env: NodeJS.ProcessEnv = {
      CANDLEWICK_PYTHON: variable,
      VIRTUAL_ENV: join(folder, 'active'),
      PATH: `${join(folder, 'bin')}:/bin`,
    };
    const cwd = join(folder, 'here');
    expect(await findPython({ python: asked, env, cwd })).toEqual({
      path: asked,
      version: '3.13.1',
      from: '--python',
    });
    expect(await findPython({ env, cwd })).toMatchObject({ path: variable, from: 'CANDLEWICK_PYTHON' });
    delete env.CANDLEWICK_PYTHON;
    expect(await findPython({ env, cwd })).toMatchObject({ path: active, from: 'VIRTUAL_ENV' });
    delete env.VIRTUAL_ENV;
    expect(await findPython({ env, cwd })).toMatchObject({ path: near, from: './.venv' });
  });

  it('that was asked for and is too old or none is an error, whatever else there is', async () => {
    const old = await pretend('old', '3.8.10');
    const file = join(folder, 'text');
    await writeFile(file, 'no program');
    await expect(findPython({ python: old })).rejects.toMatchObject({
      code: 'PYTHON_NOT_FOUND',
      message: expect.stringContaining('is Python 3.8.10'),
      hint: expect.stringContaining('3.10'),
      exitCode: 3,
    });
    await expect(findPython({ env: { CANDLEWICK_PYTHON: file } })).rejects.toMatchObject({
      message: `CANDLEWICK_PYTHON names ${file}, which does not start as a Python`,
    });
  });

  it('is the next one where an environment holds one that is too old', async () => {
    await pretend('stale/bin/python', '3.6.1');
    const near = await pretend('there/.venv/bin/python', '3.12.0');
    const env = { VIRTUAL_ENV: join(folder, 'stale'), PATH: '/nowhere' };
    expect(await findPython({ env, cwd: join(folder, 'there') })).toMatchObject({ path: near });
  });
});
