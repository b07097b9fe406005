import { divisors } from '../config/index.js';
import type { Decision, LoadedConfig, ResolvedConfig } from '../config/index.js';
import type { NativeBinding, RunMemory } from '../native/binding.js';
import { gpuAvailable } from './gpu.js';
import { hostMemory } from './host.js';
import { memoryOf } from './memory.js';
import type { Known } from './memory.js';
import { bytesInWords } from './units.js';

/** What a configuration leaves to the machine's memory. */
export interface Open {
  microBatch: boolean;
  recompute: boolean;
}

export function openIn({ given }: Pick<LoadedConfig, 'given'>): Open {
  return {
    microBatch: given.training.micro_batch_size === 'auto',
    recompute: given.training.recompute === 'auto',
  };
}

/**
 * Decides `training.micro_batch_size: auto`, the largest divisor of the global batch that fits into memory, and
 * `training.recompute: auto`, `none` if that fits, and writes both into `config`. Where nothing fits the smallest is
 * left to be refused. Throws CONFIG_INVALID.
 */
export function fitToMemory(
  binding: NativeBinding,
  config: ResolvedConfig,
  open: Open,
  known: Known = {},
): Decision[] {
  if (!open.microBatch && !open.recompute) return [];
  const { training } = config;
  const available = known.memoryAvailable ?? hostMemory().available + process.memoryUsage.rss();
  const gpu = gpuAvailable(binding, config, known);
  const sizes = open.microBatch
    ? divisors(training.global_batch_size).reverse()
    : [training.micro_batch_size];
  const policies = open.recompute ? (['none', 'norms_and_swiglu'] as const) : [training.recompute];
  let memory: RunMemory | undefined;
  const fits = sizes.some((size) =>
    policies.some((recompute) => {
      Object.assign(training, { micro_batch_size: size, recompute });
      memory = memoryOf(binding, config, { ...known, memoryAvailable: available });
      return memory.required <= available && (memory.device?.required ?? 0) <= (gpu ?? Infinity);
    }),
  );
  const reason = `the run ${fits ? 'takes' : 'needs'} ${inWords(memory, available, gpu)}`;
  const decide = (key: string, value: string | number) => ({ key, value: String(value), reason });
  return [
    ...(open.microBatch ? [decide('training.micro_batch_size', training.micro_batch_size)] : []),
    ...(open.recompute ? [decide('training.recompute', training.recompute)] : []),
  ];
}

/** Of the GPU's memory where there is one, since that decides there; else of the machine's. */
function inWords(memory: RunMemory | undefined, available: number, gpu: number | null): string {
  const device = memory?.device ?? null;
  const [required, free, where] =
    device === null ? [memory?.required ?? 0, available, ''] : [device.required, gpu, " of the GPU's memory"];
  const left = free === null ? 'how much is free is not known' : `${bytesInWords(free)} are free`;
  return `${bytesInWords(required)}${where}, and ${left}`;
}
