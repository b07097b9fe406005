import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { setupCommand } from '../src/cli/setup.js';
import type { CudaReport } from '../src/cuda/index.js';
import { errorFor } from '../src/errors.js';
import type * as bindings from '../src/native/index.js';
import { environmentPython } from '../src/setup/python.mjs';
import { h100 } from './support/fake-cuda.js';

/** What the native side says of the machine. */
const machine = vi.hoisted(() => ({ look: (): CudaReport => missing() }));
vi.mock('../src/native/index.js', async (original) => {
  const real = await original<typeof bindings>();
  return { ...real, native: () => ({ ...real.native(), cudaReport: () => machine.look() }) };
});

/** A GPU and its driver, and nothing else of CUDA. */
function missing(change: Partial<CudaReport> = {}): CudaReport {
  const wheels = ['nvidia-cublas>=13,<14', 'nvidia-curand>=10.4,<11'];
  return { built: true, driver: null, gpus: [h100], libraries: [], wheels, trouble: null, ...change };
}

let folder: string;

beforeEach(() => {
  machine.look = () => missing({ gpus: [] });
  folder = mkdtempSync(join(tmpdir(), 'candlewick-setup-command-'));
});

afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** A Python that makes environments of itself and whose pip does as told. */
function python(pip: string): void {
  const path = join(folder, 'python3');
  const probe = JSON.stringify({ version: [3, 12, 1], executable: path, missing: [] });
  writeFileSync(
    path,
    `#!/bin/sh
     case "$1 $2 $3" in
       "-m venv "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo > "$4/pyvenv.cfg" ;;
       "-m pip install") ${pip} ;;
       "-m pip "*) ;;
       *) echo '${probe}' ;;
     esac\n`,
  );
  chmodSync(path, 0o755);
  vi.stubEnv('CANDLEWICK_PYTHON', path);
}

function printed(): string[] {
  const lines: string[] = [];
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    lines.push(String(text));
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  return lines;
}

it('candlewick setup makes the environment where --venv says and prints its Python', async () => {
  python('echo "$@" > "$0.asked"');
  const lines = printed();
  const dir = join(folder, 'venv');
  await setupCommand().parseAsync(['--venv', dir], { from: 'user' });
  expect(lines.join('')).toBe(`${environmentPython(dir)}\n`);
  expect(existsSync(`${environmentPython(dir)}.asked`)).toBe(true);
});

it('with --json it prints one object, and the second time says that nothing was made', async () => {
  python('true');
  const lines = printed();
  const dir = join(folder, 'venv');
  await setupCommand().parseAsync(['--venv', dir, '--json'], { from: 'user' });
  await setupCommand().parseAsync(['--venv', dir, '--json'], { from: 'user' });
  const objects = lines.map((line) => JSON.parse(line) as { type: string; made: boolean });
  expect(objects.map(({ type, made }) => [type, made])).toEqual([
    ['setup', true],
    ['setup', false],
  ]);
});

/** What pip was asked for, a line each time. */
const asked = (dir: string) =>
  readFileSync(`${environmentPython(dir)}.asked`, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.replace(/^.*--no-input /, ''));

it("where a GPU lacks CUDA's libraries, pip brings them into the same environment", async () => {
  python('echo "$@" >> "$0.asked"');
  machine.look = () => missing();
  const lines = printed();
  const dir = join(folder, 'venv');
  await setupCommand().parseAsync(['--venv', dir, '--json'], { from: 'user' });
  expect(asked(dir).slice(1)).toEqual(['nvidia-cublas>=13,<14 nvidia-curand>=10.4,<11']);
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ type: 'setup', wheels: missing().wheels });
});

it.each([
  ['without a GPU', () => missing({ gpus: [] })],
  ['where nothing is missing', () => missing({ wheels: [] })],
  ['for a binary without CUDA', () => missing({ built: false })],
  [
    'where the binary does not load',
    () => {
      throw errorFor('NATIVE_NOT_FOUND', 'no binary', 'install it');
    },
  ],
])('%s nothing of CUDA is asked for', async (_, look) => {
  python('echo "$@" >> "$0.asked"');
  machine.look = look;
  printed();
  const dir = join(folder, 'venv');
  await setupCommand().parseAsync(['--venv', dir, '--quiet'], { from: 'user' });
  expect(asked(dir)).toHaveLength(1);
});

it("a pip that does not find CUDA's libraries is PYTHON_PACKAGE_MISSING", async () => {
  python('case "$*" in *nvidia*) echo "no index" >&2; exit 1 ;; esac');
  machine.look = () => missing();
  printed();
  const command = setupCommand().parseAsync(['--venv', join(folder, 'venv'), '--quiet'], { from: 'user' });
  await expect(command).rejects.toMatchObject({
    code: 'PYTHON_PACKAGE_MISSING',
    message: expect.stringMatching(/could not install the libraries of CUDA: no index/),
  });
});

it('a pip that fails is PYTHON_PACKAGE_MISSING, with what pip said', async () => {
  python('echo "no matching distribution" >&2; exit 1');
  printed();
  const command = setupCommand().parseAsync(['--venv', join(folder, 'venv'), '--quiet'], { from: 'user' });
  await expect(command).rejects.toMatchObject({
    code: 'PYTHON_PACKAGE_MISSING',
    exitCode: 3,
    message: expect.stringContaining('no matching distribution'),
  });
});
