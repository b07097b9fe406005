/** The sides of bench/step.ts: processes that are asked for steps and answer with their seconds. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const examples = join(here, '../../target/release/examples');

/** What to train, by the names of `config.json`. */
export interface Spec {
  model: Record<string, string | number | boolean>;
  rows: number;
  length: number;
}

export interface Answer {
  seconds: number[];
  peak_bytes: number | null;
}

export const sideNames = ['candlewick', 'eager', 'compiled', 'candle'] as const;
export type SideName = (typeof sideNames)[number];

const torchModel = ({ model, ...rest }: Spec): Spec => {
  const { architecture: _, tie_word_embeddings: __, max_position_embeddings: ___, ...shape } = model;
  return { model: shape, ...rest };
};

/** A process that is warm and waits. */
export class Side {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  readonly name: string;
  /** The first line that it said. */
  hello: Record<string, unknown> = {};

  private constructor(name: string, command: string, args: string[], threads: number) {
    this.name = name;
    // Not the repository's folder: nothing of a side depends on where it runs.
    this.#child = spawn(command, args, {
      cwd: tmpdir(),
      env: { ...process.env, RAYON_NUM_THREADS: String(threads), PYTHONDONTWRITEBYTECODE: '1' },
    });
    this.#child.stderr.pipe(process.stderr);
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  static async start(name: string, command: string, args: string[], threads: number): Promise<Side> {
    const side = new Side(name, command, args, threads);
    side.hello = JSON.parse(await side.#line());
    return side;
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.name} ended before it answered; its stderr is above`);
    return value;
  }

  /** Takes so many steps. */
  async ask<T = Answer>(steps: number): Promise<T> {
    this.#child.stdin.write(`${steps}\n`);
    return JSON.parse(await this.#line());
  }

  async end(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.stdin.end();
    await ended;
  }
}

/** Starts a side and warms it up. */
export function start(name: SideName, spec: Spec, threads: number, torchPython: string): Promise<Side> {
  const rust = (example: string) =>
    Side.start(name, join(examples, example), [String(threads), JSON.stringify(spec)], threads);
  const torch = () =>
    Side.start(
      name,
      torchPython,
      [join(here, 'peer.py'), name, String(threads), JSON.stringify(torchModel(spec))],
      threads,
    );
  switch (name) {
    case 'candlewick':
      return rust('step_side');
    case 'candle':
      return rust('step_candle');
    default:
      return torch();
  }
}

export interface Products {
  products: { name: string; dimensions: [number, number, number]; times: number }[];
}

/** The products of a step alone, ours beside the `gemm` crate's. */
export function startProducts(spec: Spec, threads: number): Promise<Side> {
  const args = [String(threads), JSON.stringify(spec)];
  return Side.start('products', join(examples, 'products'), args, threads);
}

/** Runs `body` while `gate`, a command that keeps the machine quiet as long as the command given to it runs, does. */
export async function quietly<T>(gate: string[], body: () => Promise<T>): Promise<T> {
  const [command, ...args] = gate;
  if (command === undefined) return body();
  // `cat` says back what it is told once the gate has started it, and ends with its input.
  const child = spawn(command, [...args, 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  child.stdin.write('\n');
  await Promise.race([
    once(child.stdout, 'data'),
    ended.then(([code]) => {
      throw new Error(`${gate.join(' ')} ended with ${code} before the measurement`);
    }),
  ]);
  try {
    return await body();
  } finally {
    child.stdin.end();
    await ended;
  }
}
