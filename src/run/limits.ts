import type { ResolvedConfig } from '../config/index.js';

/** How far a run has come. */
export interface Position {
  step: number;
  tokens: number;
  documents: number;
}

/** Progress from 0 to 1: the largest over the limits that are set; null with none. */
export function progressOf(config: ResolvedConfig, at: Position): number | null {
  const shares = [
    [at.step, config.training.max_steps],
    [at.tokens, config.training.max_tokens],
    [at.documents, config.data.max_samples],
  ].flatMap(([done, limit]) => (typeof done === 'number' && typeof limit === 'number' ? [done / limit] : []));
  return shares.length === 0 ? null : Math.min(1, Math.max(...shares));
}

/** Whether `progressOf` has reached its end. */
export function isAtLimit(config: ResolvedConfig, at: Position): boolean {
  return progressOf(config, at) === 1;
}

/** No limit: the native side counts steps in 32 bits. */
const FAR = 2 ** 31 - 1;

/** The next step at which the run must pause: to save, to evaluate, or because it ends there. */
export function nextPause(config: ResolvedConfig, step: number, evaluates: boolean): number {
  const next = (every: number | null) => (every === null ? FAR : (Math.floor(step / every) + 1) * every);
  return Math.min(
    next(config.checkpoint.every_steps),
    evaluates ? next(config.evaluation.every_steps) : FAR,
    config.training.max_steps ?? FAR,
  );
}

/** Whether something that happens every so many steps happens after `step`. */
export function isDue(step: number, every: number | null): boolean {
  return every !== null && step > 0 && step % every === 0;
}

/** The limits that are set, in words. */
export function limitsInWords(config: ResolvedConfig): string {
  const count = (n: number) => n.toLocaleString('en-US');
  const { max_steps: steps, max_tokens: tokens, max_minutes: minutes } = config.training;
  const { max_samples: samples, epochs } = config.data;
  const set = [
    steps === null ? null : `${count(steps)} steps`,
    tokens === null ? null : `${count(tokens)} tokens`,
    samples === null ? null : `${count(samples)} documents`,
    minutes === null ? null : `${count(minutes)} minutes of this start`,
    epochs === null ? null : `${count(epochs)} ${epochs === 1 ? 'epoch' : 'epochs'}`,
  ].filter((words) => words !== null);
  return set.length === 0 ? 'none: until it is stopped' : set.join(' or ');
}
