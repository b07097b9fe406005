import type { ResolvedConfig } from '../config/index.js';

/** Which checkpoints stay. */
export interface Retention {
  /** So many of the newest. */
  last: number;
  /** Those of a step that this divides; null: none. */
  every: number | null;
  /** The step that was evaluated best, as far as it is known; null: none. */
  best: number | null;
}

/** The steps whose checkpoints stay, of those that there are. The newest is always among them. */
export function retained(steps: readonly number[], { last, every, best }: Retention): Set<number> {
  const newestFirst = [...steps].sort((a, b) => b - a);
  return new Set([
    ...newestFirst.slice(0, Math.max(1, last)),
    // Step 0 has learned nothing: it is there to be gone on from until there is another.
    ...newestFirst.filter((step) => every !== null && step > 0 && step % every === 0),
    ...newestFirst.filter((step) => step === best),
  ]);
}

/**
 * Checkpoints that will lie in the directory at the same time, the one that is being written included. Those of
 * `keep_every` count as far as the run's end is known.
 */
export function mostCheckpoints({ checkpoint, training, evaluation }: ResolvedConfig): number {
  const { every_steps, keep_last, keep_every, keep_best } = checkpoint;
  const last = training.max_steps ?? Number.POSITIVE_INFINITY;
  const saves = every_steps === null ? 2 : Math.ceil(last / every_steps) + 1;
  const spaced = keep_every === null || !Number.isFinite(last) ? 0 : Math.floor(last / keep_every);
  const best = keep_best && evaluation.documents > 0 ? 1 : 0;
  return Math.min(saves, keep_last + spaced + best + 1);
}
