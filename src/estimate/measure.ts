import { errorFor } from '../errors.js';
import type { ResolvedConfig } from '../config/index.js';
import type { NativeBinding } from '../native/binding.js';
import { engineShapeOf } from './memory.js';
import type { Known } from './memory.js';
import type { Speed } from './speed.js';

/** The first step pays for its buffers; it is told and not counted. */
const STEPS = 3;

export interface MeasureOptions extends Known {
  signal?: AbortSignal;
  onStep?: (step: number, seconds: number) => void;
}

/**
 * Runs three steps of the engine here, on random tokens and without data, and says how fast they were. Where a step
 * has many micro-batches each of the three has only one, so that the figure is a little low: the update counts in
 * full. Throws ABORTED, CONFIG_INVALID, OUT_OF_MEMORY_HOST.
 */
export async function measureSpeed(
  binding: NativeBinding,
  config: ResolvedConfig,
  options: MeasureOptions = {},
): Promise<Speed> {
  const { signal, onStep } = options;
  const shape = engineShapeOf(config, options);
  const { global_batch_size: all, sequence_length: length } = shape;
  const rows = Math.min(shape.micro_batch_size, all);
  const timer = binding.createStepTimer({ ...shape, micro_batch_size: rows, global_batch_size: rows });
  const counted: number[] = [];
  for (let step = 1; step <= STEPS; step++) {
    const seconds = await unlessAborted(timer.step(), signal);
    onStep?.(step, seconds);
    if (step > 1) counted.push(seconds);
  }
  const seconds = counted.reduce((sum, one) => sum + one, 0) / counted.length;
  return {
    tokensPerSecond: (rows * length) / seconds,
    source: 'measured',
    basis:
      `${seconds.toPrecision(3)} s a step of ${(rows * length).toLocaleString('en-US')} tokens on ` +
      `${shape.threads} ${shape.threads === 1 ? 'thread' : 'threads'} here, without data` +
      (rows === all ? '' : ' (one micro-batch a step)'),
  };
}

/** A step cannot be interrupted, but nobody needs to wait for it: nothing of it is kept. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return work;
  const aborted = () =>
    errorFor('ABORTED', 'stopped while steps were measured', 'run the same command again');
  if (signal.aborted) throw aborted();
  let stop: () => void = () => undefined;
  const stopped = new Promise<never>((_, reject) => {
    stop = () => reject(aborted());
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([work, stopped]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
