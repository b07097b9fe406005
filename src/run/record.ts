import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { loadConfig } from '../config/index.js';
import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import { CheckpointStore } from './checkpoint.js';
import type { Manifest } from './checkpoint.js';
import { errnoOf, exists, sha256 } from './disk.js';
import type { StreamState } from './resume.js';

/** Where a run said that its stream stood. */
export interface StreamPoint {
  step: number;
  tokens: number;
  documents: number;
  /** Rolling hash, 16 hex digits. */
  hash: string;
  /** Who said it: `metrics.jsonl` or a checkpoint's directory. */
  where: string;
  /** Batches whose update was left out since the row before. */
  unapplied?: number;
}

/** A checkpoint's part about the stream. */
export interface StreamCheckpoint {
  path: string;
  step: number;
  stream: StreamState;
  /** What the native state counts. */
  at: {
    batches: number | null;
    tokens: number;
    documents: number;
    hash: string;
    skipped: [number, number][];
  };
}

/** Where the stream of a run begins: at step 0, or where the data were last started over. */
export interface StreamOrigin {
  step: number;
  /** What makes a feed begin there. */
  from: { state: string | null; reset: boolean };
  batches: number;
  tokens: number;
  skipped: [number, number][];
  hash: string | null;
}

/** What a run left of its stream, since it was last started over. Only read, so that the run may be going on meanwhile. */
export interface RunRecord {
  directory: string;
  config: ResolvedConfig;
  origin: StreamOrigin;
  /** Logged steps, in order. */
  rows: StreamPoint[];
  /** Oldest first. */
  checkpoints: StreamCheckpoint[];
}

/** Reads a run directory. `warn` hears of checkpoints that are damaged. Throws CONFIG_INVALID, CHECKPOINT_CORRUPT. */
export async function readRecord(directory: string, warn: (message: string) => void): Promise<RunRecord> {
  const file = join(directory, 'config.yaml');
  if (!(await exists(file))) {
    throw errorFor(
      'CONFIG_INVALID',
      `${directory} holds no config.yaml: it is not the directory of a run`,
      'name the directory that training wrote to (--output)',
    );
  }
  const { config } = await loadConfig(file);
  const checkpoints = await readCheckpoints(directory, warn);
  const origin = originOf(checkpoints.at(-1)?.stream ?? null, config);
  const isLater = ({ step }: { step: number }) => step > origin.step;
  return {
    directory,
    config,
    origin,
    rows: (await readRows(join(directory, 'metrics.jsonl'))).filter(isLater),
    checkpoints: checkpoints.filter(isLater),
  };
}

function originOf(stream: StreamState | null, { training, data }: ResolvedConfig): StreamOrigin {
  const reset = stream?.reset ?? null;
  if (reset === null)
    return { step: 0, from: { state: null, reset: false }, batches: 0, tokens: 0, skipped: [], hash: null };
  const {
    tokens = 0,
    skipped = [],
    hash = null,
    ...at
  } = JSON.parse(reset.state) as Partial<StreamCheckpoint['at']>;
  // States of version 1 did not count batches.
  const batches = at.batches ?? Math.ceil(tokens / (training.global_batch_size * data.sequence_length));
  return { step: reset.step, from: { state: reset.state, reset: true }, batches, tokens, skipped, hash };
}

async function readRows(path: string): Promise<StreamPoint[]> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return [];
    throw cause;
  }
  // A run that goes on may be writing its last line.
  const lines = text.split('\n').slice(0, -1);
  return lines.flatMap((line, index) => {
    try {
      const row = JSON.parse(line) as Record<string, unknown>;
      if (!('loss' in row)) return [];
      const { step, tokens, documents, stream_hash: hash, skipped_steps: unapplied = 0 } = row;
      if (typeof hash !== 'string' || ![step, tokens, documents, unapplied].every(Number.isSafeInteger))
        throw row;
      return [{ step, tokens, documents, hash, where: 'metrics.jsonl', unapplied } as StreamPoint];
    } catch (cause) {
      throw errorFor(
        'CHECKPOINT_CORRUPT',
        `${path}:${index + 1} is no row of metrics`,
        'training again cuts the file back to its checkpoint; or restore the file',
        cause,
      );
    }
  });
}

async function readCheckpoints(
  directory: string,
  warn: (message: string) => void,
): Promise<StreamCheckpoint[]> {
  const found: StreamCheckpoint[] = [];
  for (const { path, step } of (await new CheckpointStore(join(directory, 'checkpoints')).list()).reverse()) {
    try {
      const manifest = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8')) as Manifest;
      const text = await readFile(join(path, 'stream.json'), 'utf8');
      if (sha256(text) !== manifest.files['stream.json']?.sha256) {
        warn(`${join(path, 'stream.json')} has another checksum than its manifest says: it is left aside`);
        continue;
      }
      const stream = JSON.parse(text) as StreamState;
      const { batches, tokens, documents, hash, skipped } = JSON.parse(stream.state) as Partial<
        StreamCheckpoint['at']
      >;
      if (tokens === undefined || documents === undefined || hash === undefined) throw stream;
      const at = { batches: batches ?? null, tokens, documents, hash, skipped: skipped ?? [] };
      found.push({ path, step, stream, at });
    } catch (cause) {
      // A run that goes on deletes its oldest checkpoints.
      if (await exists(path)) {
        const why = cause instanceof Error ? cause.message : 'it does not say where the stream stood';
        warn(`${path} cannot be read (${why}): it is left aside`);
      }
    }
  }
  return found;
}
