import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { setupCommand } from '../src/cli/setup.js';
import { environmentPython } from '../src/setup/python.mjs';

let folder: string;

beforeEach(() => {
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
