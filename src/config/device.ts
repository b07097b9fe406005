import { cudaReport, gpusInWords, ordinalOf, troubleWith } from '../cuda/index.js';
import type { CudaTrouble } from '../cuda/index.js';
import { CandlewickError, errorFor } from '../errors.js';
import { native } from '../native/index.js';
import type { RunConfig } from './schema.js';

/** Where a step runs; `cuda` is GPU 0. */
export type Device = 'cpu' | 'cuda' | `cuda:${string}`;

/** A device; why, where that was left to the program; and what a user ought to hear of it. */
export interface Choice {
  device: Device;
  reason: string | null;
  warning: string | null;
}

/**
 * The device that a configuration names, or for `auto` the first GPU, where it can be used and its kernels are made for the
 * model. Throws CUDA_UNAVAILABLE, CUDA_DRIVER_TOO_OLD, CONFIG_INVALID.
 */
export function chooseDevice({ device, precision }: RunConfig['training'], model: object): Choice {
  if (device === 'cpu') return { device, reason: null, warning: null };
  const report = cudaReport(ordinalOf(device));
  const trouble = troubleWith(report);
  if (device !== 'auto') {
    if (trouble !== null) {
      throw errorFor(trouble.code, `training.device is ${device}: ${trouble.message}`, trouble.hint);
    }
    checkModel(model);
    return { device, reason: null, warning: null };
  }
  const against = trouble ?? refusal(precision, model);
  if (against === null) return { device: 'cuda', reason: gpusInWords(report), warning: null };
  // Days on the wrong device cost more than a line.
  const warning =
    report.gpus.length === 0
      ? null
      : `training on the CPU although there is a GPU (${gpusInWords(report)}): ${against.message}; ${against.hint}`;
  return { device: 'cpu', reason: against.message, warning };
}

/** Why a GPU that is there does not train this model; null where it does. */
function refusal(precision: RunConfig['training']['precision'], model: object): CudaTrouble | null {
  if (precision === 'f32') {
    return {
      code: 'CONFIG_INVALID',
      message: 'training.precision is f32, and a GPU trains in bf16',
      hint: 'set training.precision to auto',
    };
  }
  try {
    checkModel(model);
    return null;
  } catch (cause) {
    if (cause instanceof CandlewickError && cause.code === 'CONFIG_INVALID') return cause as CudaTrouble;
    throw cause;
  }
}

/** A vocabulary that is not known yet will be padded to what the kernels take. */
function checkModel(model: object): void {
  const vocabulary = Reflect.get(model, 'vocab_size') ?? 128;
  native().checkModelForCuda(JSON.stringify({ ...model, vocab_size: vocabulary }));
}
