import { availableParallelism } from 'node:os';
import { chooseDevice } from './device.js';
import type { Device } from './device.js';
import { errorFor } from '../errors.js';
import type { RunConfig } from './schema.js';

/** A configuration in which every `auto` has been decided; `model.vocab_size` is null until the tokenizer is known. */
export interface ResolvedConfig extends RunConfig {
  model: RunConfig['model'] & {
    num_key_value_heads: number;
    head_dim: number;
    max_position_embeddings: number;
  };
  data: RunConfig['data'] & { threads: number };
  training: RunConfig['training'] & {
    micro_batch_size: number;
    recompute: 'none' | 'norms_and_swiglu';
    precision: 'f32' | 'bf16';
    device: Device;
    threads: number;
  };
}

/** A decision that was left to the program, and why it was taken so. */
export interface Decision {
  key: string;
  value: string;
  reason: string;
}

/** Decides everything that is `auto` or follows from another key. Throws CUDA_UNAVAILABLE, CUDA_DRIVER_TOO_OLD, CONFIG_INVALID. */
export function resolve(config: RunConfig): {
  config: ResolvedConfig;
  decisions: Decision[];
  warnings: string[];
} {
  const decisions: Decision[] = [];
  const warnings: string[] = [];
  const decide = (key: string, value: string, reason: string) => {
    decisions.push({ key, value, reason });
  };
  const { model, data, training, schedule } = config;

  const shape = {
    ...model,
    num_key_value_heads: model.num_key_value_heads ?? model.num_attention_heads,
    head_dim: model.head_dim ?? model.hidden_size / model.num_attention_heads,
    max_position_embeddings: model.max_position_embeddings ?? data.sequence_length,
  };
  const { device, reason, warning } = chooseDevice(training, shape);
  if (reason !== null) decide('training.device', device, reason);
  if (warning !== null) warnings.push(warning);
  const [precision, on] =
    device === 'cpu'
      ? (['f32', 'the CPU trains in f32'] as const)
      : (['bf16', 'a GPU trains in bf16'] as const);
  if (training.precision === 'auto') decide('training.precision', precision, on);
  else if (training.precision !== precision) {
    throw errorFor(
      'CONFIG_INVALID',
      `training.precision is ${training.precision}, and ${on}`,
      `set training.precision to auto or ${precision}`,
    );
  }
  if (config.init_from !== null && config.tokenizer.path === null) {
    decide('tokenizer', `that of ${config.init_from}`, 'its weights were trained with it');
  }
  const processors = availableParallelism();
  const threads = (key: string, value: number | 'auto') => {
    if (value !== 'auto') return value;
    decide(key, String(processors), `${processors} processors`);
    return processors;
  };
  if (training.max_steps !== null && schedule.warmup_steps > training.max_steps) {
    warnings.push(
      `schedule.warmup_steps (${schedule.warmup_steps}) is more than training.max_steps (${training.max_steps}): the run ends in its warm-up`,
    );
  }
  return {
    config: {
      ...config,
      model: shape,
      data: { ...data, threads: threads('data.threads', data.threads) },
      training: {
        ...training,
        // `auto` is decided by `fitToMemory`, as soon as it is known what the rest takes.
        micro_batch_size:
          training.micro_batch_size === 'auto' || training.micro_batch_size === null
            ? training.global_batch_size
            : training.micro_batch_size,
        recompute: training.recompute === 'auto' ? 'none' : training.recompute,
        precision,
        device,
        threads: threads('training.threads', training.threads),
      },
    },
    decisions,
    warnings,
  };
}

/** Rows of the embedding for a tokenizer of `size` tokens: products like multiples of 128. */
export function paddedVocabSize(size: number): number {
  return Math.ceil(size / 128) * 128;
}

/** `model.vocab_size` for a tokenizer of `size` tokens. Throws TOKENIZER_MISMATCH when the configuration says otherwise. */
export function vocabSizeFor(configured: number | null, size: number): number {
  const padded = paddedVocabSize(size);
  if (configured === null || configured === padded) return padded;
  if (configured === size) return size;
  throw errorFor(
    'TOKENIZER_MISMATCH',
    `model.vocab_size is ${configured}, and the tokenizer has ${size} tokens`,
    `leave model.vocab_size out, or set it to ${size} or ${padded} (padded to 128); or name the tokenizer that was meant`,
  );
}
