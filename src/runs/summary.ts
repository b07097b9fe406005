import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { parse } from 'yaml';
import { isHeld } from '../run/index.js';
import { rowsFromEnd } from './lines.js';

/**
 * What became of a run: it is `running` (a process holds its lock), `finished` at a limit or with its data, `stopped`
 * to be gone on with, `failed` with an error that it told, `crashed` without a word, or `new`, without a step.
 */
export type RunState = 'running' | 'finished' | 'stopped' | 'failed' | 'crashed' | 'new';

/** A run directory in a few numbers; null where there is nothing to tell. */
export interface RunSummary {
  path: string;
  name: string;
  state: RunState;
  /** Code of the error that it failed with. */
  error: string | null;
  /** Completed steps, and where they end. */
  step: number | null;
  max_steps: number | null;
  loss: number | null;
  eval_loss: number | null;
  bits_per_byte: number | null;
  tokens: number | null;
  tokens_per_second: number | null;
  /** Step of the newest checkpoint; whether it verifies is another question. */
  checkpoint: number | null;
  /** Unix seconds of the last row, or of the configuration where there is none. */
  updated: number;
  /** Bytes on the disk. */
  bytes: number;
}

/** A run with its configuration, as YAML gives it. */
export interface Run {
  summary: RunSummary;
  config: Record<string, unknown>;
}

/** An evaluation is looked for among so many of the last rows. */
const ROWS_BACK = 20_000;

/** Reads a run directory from its end; null for a directory that is none. */
export async function readRun(path: string): Promise<Run | null> {
  const file = join(path, 'config.yaml');
  const found = await Promise.all([readFile(file, 'utf8'), stat(file)]).catch(() => null);
  if (found === null) return null;
  const [yaml, { mtimeMs }] = found;
  const config = asObject(safely(() => parse(yaml) as unknown));
  // Any YAML file may be called config.yaml.
  if (config === null || !('model' in config && 'training' in config)) return null;
  const [{ last, evaluation }, ending, { bytes, checkpoint }] = await Promise.all([
    historyOf(path),
    endingOf(path),
    diskOf(path),
  ]);
  const held = isHeld(join(path, 'run.lock'));
  const step = numberOf(last, 'step');
  const maxSteps = numberOf(asObject(config['training']), 'max_steps');
  const summary: RunSummary = {
    path,
    name: basename(path),
    state: held ? 'running' : stateOf(step, maxSteps, checkpoint, ending),
    error: held || ending?.['type'] !== 'error' ? null : String(ending['code']),
    step,
    max_steps: maxSteps,
    loss: numberOf(last, 'loss'),
    eval_loss: numberOf(evaluation, 'eval_loss'),
    bits_per_byte: numberOf(evaluation, 'bits_per_byte'),
    tokens: numberOf(last, 'tokens'),
    tokens_per_second: numberOf(last, 'tokens_per_second'),
    checkpoint,
    updated: numberOf(last, 'time') ?? mtimeMs / 1000,
    bytes,
  };
  return { summary, config };
}

/** The last row of a step, and the last evaluation. */
async function historyOf(
  path: string,
): Promise<Record<'last' | 'evaluation', Record<string, unknown> | null>> {
  let last: Record<string, unknown> | null = null;
  let evaluation: Record<string, unknown> | null = null;
  let rows = 0;
  for await (const row of rowsFromEnd(join(path, 'metrics.jsonl'))) {
    if ('loss' in row) last ??= row;
    if ('eval_loss' in row) evaluation ??= row;
    if ((last !== null && evaluation !== null) || ++rows > ROWS_BACK) break;
  }
  return { last, evaluation };
}

/** The last event that says how a process of the run ended, unless another began after it. */
async function endingOf(path: string): Promise<Record<string, unknown> | null> {
  for await (const row of rowsFromEnd(join(path, 'events.jsonl'))) {
    if (row['type'] === 'done' || row['type'] === 'error') return row;
    // Whatever else comes last was told by a process that then told nothing more.
    return null;
  }
  return null;
}

function stateOf(
  step: number | null,
  maxSteps: number | null,
  checkpoint: number | null,
  ending: Record<string, unknown> | null,
): RunState {
  if (ending?.['type'] === 'error') return 'failed';
  if (ending?.['type'] === 'done') return ending['reason'] === 'stopped' ? 'stopped' : 'finished';
  if (step === null) return 'new';
  if (checkpoint !== step) return 'crashed';
  return maxSteps !== null && step >= maxSteps ? 'finished' : 'stopped';
}

/** Bytes of everything below a run directory, and the step of its newest checkpoint. */
async function diskOf(path: string): Promise<{ bytes: number; checkpoint: number | null }> {
  let bytes = 0;
  let checkpoint: number | null = null;
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile())
      bytes += (await stat(join(entry.parentPath, entry.name)).catch(() => null))?.size ?? 0;
    const step = /^step-(\d{8,})$/.exec(entry.name)?.[1];
    if (entry.isDirectory() && step !== undefined) checkpoint = Math.max(checkpoint ?? 0, Number(step));
  }
  return { bytes, checkpoint };
}

function asObject(value: unknown): Record<string, unknown> | null {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : null;
}

function numberOf(row: Record<string, unknown> | null, key: string): number | null {
  const value = row?.[key];
  return typeof value === 'number' ? value : null;
}

function safely(body: () => unknown): unknown {
  try {
    return body();
  } catch {
    return null;
  }
}
