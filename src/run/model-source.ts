import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errorFor } from '../errors.js';
import { namedCheckpoint } from './checkpoint.js';
import type { Checkpoint } from './checkpoint.js';

/** A directory with a model that can be loaded. */
export interface ModelSource {
  directory: string;
  /** Null for a model that is no checkpoint of a run: one that was exported, or that others saved. */
  checkpoint: Checkpoint | null;
}

/**
 * Finds the model that a user named: the newest good checkpoint of a run, a checkpoint itself, or a directory with
 * config.json and weights. `skipped` hears of damaged checkpoints. Throws CONFIG_INVALID, CHECKPOINT_CORRUPT.
 */
export async function findModel(
  path: string,
  skipped: (path: string, reason: string) => void,
): Promise<ModelSource> {
  if ((await has(path, 'checkpoints')) || (await has(path, 'manifest.json'))) {
    const checkpoint = await namedCheckpoint(path, skipped);
    return { directory: checkpoint.path, checkpoint };
  }
  const weights = ['model.safetensors', 'model.safetensors.index.json'];
  for (const name of weights) {
    if ((await has(path, 'config.json')) && (await has(path, name)))
      return { directory: path, checkpoint: null };
  }
  const there = await stat(path).catch(() => null);
  throw errorFor(
    'CONFIG_INVALID',
    there === null ? `there is no ${path}` : `${path} holds no model`,
    'name a run directory, a checkpoint, or a directory with config.json and model.safetensors',
  );
}

async function has(directory: string, name: string): Promise<boolean> {
  return (await stat(join(directory, name)).catch(() => null)) !== null;
}
