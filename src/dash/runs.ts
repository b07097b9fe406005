import { open, readFile, readdir, stat } from 'node:fs/promises';
import { basename, join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { errorFor } from '../errors.js';
import { isHeld } from '../run/index.js';
import { curvesOf, encodeCurves, lowerBound } from './downsample.js';
import type { Window } from './downsample.js';
import { MetricsTail } from './tail.js';

/** Of samples.md its end is shown. */
const SAMPLE_BYTES = 1 << 18;

/** What the page shows of a run beside its curves. */
export interface RunSummary {
  id: number;
  name: string;
  path: string;
  /** Whether a process holds the run. */
  live: boolean;
  rows: number;
  /** The last row of steps, and of evaluations. */
  last: Record<string, number>;
  limits: { steps: number | null; tokens: number | null };
  /** A line on model and training. */
  about: string;
  /** Names of the sources of a mixture. */
  sources: string[];
  /** Bytes of samples.md. */
  samples: number;
  /** Why its files cannot be read; null: they can. */
  problem: string | null;
}

/** A run directory that is followed. */
export class FollowedRun {
  readonly id: number;
  readonly path: string;
  readonly #tail: MetricsTail;
  #live = false;
  #samples = 0;
  #about: Pick<RunSummary, 'limits' | 'about' | 'sources'> = {
    limits: { steps: null, tokens: null },
    about: '',
    sources: [],
  };
  #configTime = 0;
  #problem: string | null = null;

  constructor(id: number, path: string) {
    this.id = id;
    this.path = path;
    this.#tail = new MetricsTail(join(path, 'metrics.jsonl'));
  }

  /** Looks at the files; whether anything changed. What cannot be read is the run's problem, and no other's. */
  async poll(): Promise<boolean> {
    const before = this.#problem;
    try {
      this.#problem = null;
      return (await this.#poll()) || before !== null;
    } catch (cause) {
      this.#problem = cause instanceof Error ? cause.message : String(cause);
      return this.#problem !== before;
    }
  }

  async #poll(): Promise<boolean> {
    const look = (name: string) => stat(join(this.path, name)).catch(() => null);
    const [samples, config] = [await look('samples.md'), await look('config.yaml')];
    const live = isHeld(join(this.path, 'run.lock'));
    const size = samples?.size ?? 0;
    let changed = live !== this.#live || size !== this.#samples;
    this.#live = live;
    this.#samples = size;
    if (config !== null && config.mtimeMs !== this.#configTime) {
      this.#configTime = config.mtimeMs;
      this.#about = await aboutRun(join(this.path, 'config.yaml'));
      changed = true;
    }
    return (await this.#tail.poll()) || changed;
  }

  summary(name: string): RunSummary {
    const { steps, evaluations } = this.#tail;
    const last: Record<string, number> = {};
    for (const table of [evaluations, steps]) {
      for (const [key, column] of table.columns) {
        const value = column.at(table.rows - 1);
        if (Number.isFinite(value)) last[key] = value;
      }
    }
    const { id, path } = this;
    return {
      id,
      name,
      path,
      live: this.#live,
      rows: steps.rows,
      last,
      ...this.#about,
      samples: this.#samples,
      problem: this.#problem,
    };
  }

  /** The curves of a window, as bytes. */
  curves(window: Window): Buffer {
    const { steps, evaluations } = this.#tail;
    const stepX = steps.column('step').values;
    const began = steps.column('time').at(0);
    const elapsed = (times: Float64Array) => times.map((time) => time - began);
    const tokensAt = (step: number) =>
      steps.column('tokens').at(Math.min(Math.max(0, lowerBound(stepX, step)), Math.max(0, steps.rows - 1)));
    const x = {
      step: () => [stepX, evaluations.column('step').values],
      tokens: () => [steps.column('tokens').values, evaluations.column('step').values.map(tokensAt)],
      time: () => [elapsed(steps.column('time').values), elapsed(evaluations.column('time').values)],
    }[window.axis]();
    const [stepsX = new Float64Array(), evaluationsX = new Float64Array()] = x;
    // Evaluations are few and far apart: they are not smoothed.
    return encodeCurves(
      [
        { kind: 'step', curves: curvesOf(steps, stepsX, window) },
        { kind: 'eval', curves: curvesOf(evaluations, evaluationsX, { ...window, smooth: 1 }) },
      ],
      { rows: steps.rows, extent: [stepsX[0] ?? null, stepsX.at(-1) ?? null] },
    );
  }

  /** The end of samples.md; empty where there is none. */
  async samples(): Promise<string> {
    const file = await open(join(this.path, 'samples.md'), 'r').catch(() => null);
    if (file === null) return '';
    try {
      const { size } = await file.stat();
      const start = Math.max(0, size - SAMPLE_BYTES);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(size - start), 0, size - start, start);
      const text = buffer.toString('utf8', 0, bytesRead);
      return start === 0 ? text : text.slice(text.indexOf('\n') + 1);
    } finally {
      await file.close();
    }
  }
}

/** The runs that were named: directories of runs, and the runs in other directories, which are looked for again and again. */
export class FollowedRuns {
  readonly #roots: readonly string[];
  readonly #runs = new Map<string, FollowedRun>();

  /** `roots` are run directories, or directories that hold some. */
  constructor(roots: readonly string[]) {
    this.#roots = roots.map((root) => resolve(root));
  }

  /** Throws CONFIG_INVALID where there is no run yet. */
  async open(): Promise<void> {
    for (const root of this.#roots) {
      if ((await runsIn(root)).length > 0) continue;
      const there = (await stat(root).catch(() => null)) !== null;
      throw errorFor(
        'CONFIG_INVALID',
        there ? `${root} holds no run` : `there is no ${root}`,
        'name a run directory (it has config.yaml and metrics.jsonl), or a directory of such',
      );
    }
    await this.poll();
  }

  /** Looks for new runs and new rows; the runs of which anything changed. */
  async poll(): Promise<FollowedRun[]> {
    for (const root of this.#roots) {
      for (const path of await runsIn(root)) {
        if (!this.#runs.has(path)) this.#runs.set(path, new FollowedRun(this.#runs.size, path));
      }
    }
    const changed: FollowedRun[] = [];
    for (const run of this.#runs.values()) if (await run.poll()) changed.push(run);
    return changed;
  }

  get(id: number): FollowedRun | undefined {
    return [...this.#runs.values()][id];
  }

  summaries(): RunSummary[] {
    const runs = [...this.#runs.values()];
    return runs.map((run) => {
      const name = basename(run.path);
      const alone = runs.filter((other) => basename(other.path) === name).length === 1;
      return run.summary(alone ? name : relative(process.cwd(), run.path) || run.path);
    });
  }
}

/** The directory itself, if it is a run's, or the runs in it. */
async function runsIn(root: string): Promise<string[]> {
  if (await isRun(root)) return [root];
  const entries = await readdir(root, { withFileTypes: true }).catch(() => []);
  const paths = entries.filter((entry) => entry.isDirectory()).map(({ name }) => join(root, name));
  const found: string[] = [];
  for (const path of paths.sort()) if (await isRun(path)) found.push(path);
  return found;
}

async function isRun(path: string): Promise<boolean> {
  for (const name of ['metrics.jsonl', 'config.yaml']) {
    if ((await stat(join(path, name)).catch(() => null))?.isFile() === true) return true;
  }
  return false;
}

/** What a configuration says, in a line; nothing for one that cannot be read. */
async function aboutRun(path: string): Promise<Pick<RunSummary, 'limits' | 'about' | 'sources'>> {
  const text = await readFile(path, 'utf8').catch(() => '');
  let values: unknown = null;
  try {
    values = parse(text);
  } catch {
    // It is being written, or is no YAML: the curves do not need it.
  }
  const at = (...keys: string[]): unknown =>
    keys.reduce<unknown>(
      (node, key) => (typeof node === 'object' && node !== null ? Reflect.get(node, key) : null),
      values,
    );
  const number = (...keys: string[]) => {
    const value = at(...keys);
    return typeof value === 'number' ? value : null;
  };
  const sources = at('data', 'sources');
  const named = Array.isArray(sources)
    ? sources.map((source) => String(Reflect.get(source as object, 'dataset')))
    : [];
  const [layers, width, batch, length, lr] = [
    number('model', 'num_hidden_layers'),
    number('model', 'hidden_size'),
    number('training', 'global_batch_size'),
    number('data', 'sequence_length'),
    number('optimizer', 'lr'),
  ];
  const about = [
    layers === null || width === null ? null : `${String(at('model', 'architecture'))} ${layers} × ${width}`,
    batch === null || length === null ? null : `batch ${batch} × ${length}`,
    lr === null ? null : `lr ${lr}`,
    named.length > 0 ? `${named.length} sources` : (at('data', 'dataset') ?? null),
  ];
  return {
    limits: { steps: number('training', 'max_steps'), tokens: number('training', 'max_tokens') },
    about: about.filter((part) => part !== null).join(' · '),
    sources: named,
  };
}
