/** What a run writes. */
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import { checkpointBytes, mostCheckpoints } from '../run/index.js';

/** Bytes on the disk. */
export interface DiskUse {
  /** One checkpoint: weights and both moments in f32, headers, states. */
  checkpoint: number;
  /** Checkpoints that lie there at the same time, the one being written included. */
  checkpoints: number;
  /** Tokenizer, metrics, configuration. */
  rest: number;
  /** The most at a time. */
  total: number;
  /** Free where the run will be; null where that cannot be told. */
  free: number | null;
}

/** A row of metrics.jsonl. */
const METRICS_ROW = 330;
/** A token in tokenizer.json, vocab.json and merges.txt together. */
const TOKENIZER_ENTRY = 70;

/** Disk of a run; `steps` null where it has no end that is known. */
export async function diskUse(
  config: ResolvedConfig,
  parameters: number,
  tokenizerSize: number,
  steps: number | null,
  directory: string,
): Promise<DiskUse> {
  const checkpoint = checkpointBytes(parameters);
  const checkpoints = mostCheckpoints(config);
  const rows = steps === null ? 0 : Math.ceil(steps / config.logging.every_steps);
  const rest = tokenizerSize * TOKENIZER_ENTRY + rows * METRICS_ROW;
  return {
    checkpoint,
    checkpoints,
    rest,
    total: checkpoints * checkpoint + rest,
    free: await freeAt(directory),
  };
}

/** Bytes free at a path, or at the nearest directory above that exists. */
async function freeAt(path: string): Promise<number | null> {
  for (let at = resolve(path); ; at = dirname(at)) {
    try {
      const { bavail, bsize } = await statfs(at);
      return bavail * bsize;
    } catch {
      if (at === dirname(at)) return null;
    }
  }
}
