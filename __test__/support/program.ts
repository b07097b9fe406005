/** The package's programs as processes, the way users start them. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { python, repository } from './python.js';

/** Whether there are a build, its binding, and a Python with the requirements. */
export const isBuilt =
  existsSync(join(repository, 'dist', 'cli', 'index.js')) &&
  existsSync(python) &&
  spawnSync(process.execPath, ['-e', "import('./dist/native/index.js').then((m) => m.native())"], {
    cwd: repository,
  }).status === 0;

const running: ChildProcess[] = [];

/** Remembers a process, so that `killAll` ends it with the test. */
export function started(child: ChildProcess): void {
  running.push(child);
}

/** Ends what a test has left running. */
export function killAll(): void {
  for (const child of running.splice(0)) child.kill('SIGKILL');
}

/** A program of the package, running. */
export interface Program {
  child: ChildProcess;
  stdout: string;
  stderr: string;
  /** Resolves to the exit code, or the name of the signal that ended it. */
  ended: Promise<number | string>;
  /** Resolves when a line of stdout matches. */
  saw: (pattern: RegExp) => Promise<void>;
}

/** Starts a program as its bin does. */
export function start(bin: string, ...argv: string[]): Program {
  return startIn({}, bin, ...argv);
}

/** Starts a program in another directory, with more in its environment. */
export function startIn(
  { cwd = repository, env = {} }: { cwd?: string; env?: Record<string, string> },
  bin: string,
  ...argv: string[]
): Program {
  const child = spawn(process.execPath, [join(repository, 'bin', `${bin}.js`), ...argv], {
    cwd,
    env: { ...process.env, CANDLEWICK_PYTHON: python, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  started(child);
  const waiting: { pattern: RegExp; resolve: () => void; reject: (cause: Error) => void }[] = [];
  const program: Program = {
    child,
    stdout: '',
    stderr: '',
    ended: once(child, 'close').then(([code, signal]) => {
      for (const { pattern, reject } of waiting) {
        reject(new Error(`ended before ${pattern}: ${program.stdout}${program.stderr}`));
      }
      return (code ?? signal) as number | string;
    }),
    saw: (pattern) =>
      new Promise((resolve, reject) => {
        if (pattern.test(program.stdout)) resolve();
        else waiting.push({ pattern, resolve, reject });
      }),
  };
  child.stderr?.on('data', (chunk: Buffer) => {
    program.stderr += chunk.toString();
  });
  child.stdout?.on('data', (chunk: Buffer) => {
    program.stdout += chunk.toString();
    for (const entry of waiting.splice(0)) {
      if (entry.pattern.test(program.stdout)) entry.resolve();
      else waiting.push(entry);
    }
  });
  return program;
}

/** Losses by step, as they were written: equal text is equal to the last bit. */
export async function losses(root: string, output: string): Promise<string[]> {
  const text = await readFile(join(root, output, 'metrics.jsonl'), 'utf8');
  return text
    .split('\n')
    .filter((line) => line.includes('"loss"'))
    .map((line) => {
      const { step, loss, stream_hash: hash } = JSON.parse(line) as Record<string, unknown>;
      return `${String(step)} ${String(loss)} ${String(hash)}`;
    });
}
