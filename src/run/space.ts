import { stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import { namesIn, sizesIn } from './disk.js';
import { mostCheckpoints } from './retention.js';

/** Weights and two moments, all f32. */
const BYTES_PER_PARAMETER = 12;
/** Headers, configuration, states and manifest, generously. */
const OVERHEAD = 128 * 1024;

/** Bytes of a checkpoint of a model with so many parameters. */
export function checkpointBytes(parameters: number): number {
  return parameters * BYTES_PER_PARAMETER + OVERHEAD;
}

/**
 * Makes sure that the checkpoints that a run will keep fit on the disk of `directory`, before time is spent. What lies
 * there already makes room for what comes. Throws DISK_FULL with what is needed and free.
 */
export async function requireSpace(
  directory: string,
  checkpoints: string,
  config: ResolvedConfig,
  parameters: number,
): Promise<void> {
  const each = checkpointBytes(parameters);
  const most = mostCheckpoints(config);
  const needed = most * each;
  const { bavail, bsize, blocks } = await statfs(directory);
  // Some network file systems do not say.
  if (blocks === 0) return;
  const free = bavail * bsize;
  const held = await bytesIn(checkpoints);
  if (free + held >= needed) return;
  const fits = Math.max(0, Math.floor((free + held) / each));
  throw errorFor(
    'DISK_FULL',
    `the checkpoints of this run need ${gigabytes(needed)} in ${directory} (${most} of ${gigabytes(each)}, the one that ` +
      `is being written included), and ${gigabytes(free + held)} are free`,
    [
      `free ${gigabytes(needed - free - held)}`,
      ...lowered(config, most - fits),
      'or name a directory on a larger disk with --output',
    ].join(', '),
  );
}

/** Edits that make room for so many checkpoints, where there are any. */
function lowered({ checkpoint }: ResolvedConfig, surplus: number): string[] {
  const { keep_last, keep_every } = checkpoint;
  if (keep_every !== null) return ['or raise checkpoint.keep_every or leave it out'];
  return keep_last > surplus ? [`or set checkpoint.keep_last to ${keep_last - surplus}`] : [];
}

async function bytesIn(checkpoints: string): Promise<number> {
  let sum = 0;
  for (const name of await namesIn(checkpoints)) {
    const path = join(checkpoints, name);
    // Something may be deleting what an earlier process left.
    const isDirectory = (await stat(path).catch(() => null))?.isDirectory() === true;
    if (isDirectory) for (const bytes of (await sizesIn(path)).values()) sum += bytes;
  }
  return sum;
}

function gigabytes(bytes: number): string {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(1)} GB`;
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`;
}
