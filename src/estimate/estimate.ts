import { paddedVocabSize, vocabSizeFor } from '../config/index.js';
import type { LoadedConfig, ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding, RunMemory } from '../native/binding.js';
import { diskUse } from './disk.js';
import type { DiskUse } from './disk.js';
import { editsThatFit } from './edits.js';
import type { Edit } from './edits.js';
import { fitToMemory, openIn } from './fit.js';
import { gpuAvailable } from './gpu.js';
import { hostMemory } from './host.js';
import { ASSUMED_DOCUMENT_BYTES, memoryOf, tokenizerSizeOf } from './memory.js';
import type { Known } from './memory.js';
import { assumedCpuSpeed, flopsPerToken } from './speed.js';
import type { FlopsPerToken, Speed } from './speed.js';

/** Everything that can be said of a run before it begins. Bytes, seconds, FLOPs. */
export interface Estimate {
  parameters: { embedding: number; blocks: number; head: number; total: number };
  flops_per_token: FlopsPerToken;
  tokens_per_step: number;
  /** Of the whole run; null without a limit that can be counted. */
  tokens: number | null;
  steps: number | null;
  memory: RunMemory;
  /** What a new process could take on this machine; null where the run is meant for another. */
  memory_available: number | null;
  /** What is free on the GPU; null where the run is on none, is meant for another, or that cannot be said. */
  gpu_available: number | null;
  disk: DiskUse;
  speed: Speed;
  /** Of the whole run; null like `tokens`. */
  seconds: number | null;
  /** In the unit of the price per hour; null without one. */
  cost: number | null;
  /** What does not fit, in words; empty where all does. */
  problems: string[];
  /** Two edits to the configuration that would make it fit into memory. */
  edits: Edit[];
  /** What was taken as given, in words. */
  assumptions: string[];
}

/** What is known beside the configuration. */
export interface EstimateOptions extends Known {
  /** Chosen by the FLOPs of a token; default: assumed for this machine's processors. */
  speed?: (flops: FlopsPerToken) => Speed;
  pricePerHour?: number;
  /** The run is meant for another machine: whether it fits here is not asked. */
  elsewhere?: boolean;
}

/** Bytes of text a token, as byte pairs of a vocabulary of some ten thousand tokens make them. */
const BYTES_A_TOKEN = 4.2;

/** Counts a run. Throws CONFIG_INVALID, TOKENIZER_MISMATCH. */
export async function estimate(
  binding: NativeBinding,
  { config: loaded, output, given }: Pick<LoadedConfig, 'config' | 'output'> & Partial<LoadedConfig>,
  options: EstimateOptions = {},
): Promise<Estimate> {
  const tokenizerSize = options.tokenizerSize ?? tokenizerSizeOf(loaded);
  if (tokenizerSize === null) {
    throw errorFor(
      'CONFIG_INVALID',
      'the size of the vocabulary is not known',
      'set model.vocab_size, tokenizer.train.vocab_size, or tokenizer.path to a tokenizer that is there',
    );
  }
  const config: ResolvedConfig = structuredClone(loaded);
  config.model.vocab_size =
    options.tokenizerSize === undefined && loaded.tokenizer.train === null
      ? (loaded.model.vocab_size ?? paddedVocabSize(tokenizerSize))
      : vocabSizeFor(loaded.model.vocab_size, tokenizerSize);
  const available = options.memoryAvailable ?? hostMemory().available;
  const known = { ...options, tokenizerSize, memoryAvailable: available };
  const elsewhere = options.elsewhere === true;
  // On a GPU of somewhere else the kernels are the same.
  if (elsewhere && takes(binding, config)) config.training.device = 'cuda';
  const gpu = elsewhere ? null : gpuAvailable(binding, config, options);
  const decided =
    given === undefined || elsewhere ? [] : fitToMemory(binding, config, openIn({ given }), known);
  const parameters = JSON.parse(
    binding.parameterCount(JSON.stringify(config.model)),
  ) as Estimate['parameters'];
  const flops = flopsPerToken(config, config.model.vocab_size);
  const speed = options.speed?.(flops) ?? assumedCpuSpeed(config.training.threads, flops.total);
  const { tokens, assumed } = tokensOf(config, options);
  const tokensPerStep = config.training.global_batch_size * config.data.sequence_length;
  const steps = tokens === null ? null : Math.ceil(tokens / tokensPerStep);
  const seconds = tokens === null ? null : tokens / speed.tokensPerSecond;
  const memory = memoryOf(binding, config, known);
  const used = await diskUse(config, parameters.total, tokenizerSize, steps, output);
  const disk = elsewhere ? { ...used, free: null } : used;
  const fits = elsewhere || memory.required <= available;
  const fitsGpu = gpu === null || (memory.device?.required ?? 0) <= gpu;
  const needed = (changed: ResolvedConfig) => memoryOf(binding, changed, known);
  const gpuNeeded = (changed: ResolvedConfig) => ({ required: needed(changed).device?.required ?? 0 });
  const problems = [
    ...(fits ? [] : ['memory']),
    ...(fitsGpu ? [] : ['gpu memory']),
    ...(disk.free !== null && disk.total > disk.free ? ['disk'] : []),
  ];
  return {
    parameters,
    flops_per_token: flops,
    tokens_per_step: tokensPerStep,
    tokens,
    steps,
    memory,
    memory_available: elsewhere ? null : available,
    gpu_available: gpu,
    disk,
    speed,
    seconds,
    cost:
      options.pricePerHour === undefined || seconds === null ? null : (seconds / 3600) * options.pricePerHour,
    problems,
    edits: !fits
      ? editsThatFit(config, available, needed)
      : fitsGpu
        ? []
        : editsThatFit(config, gpu ?? 0, gpuNeeded),
    assumptions: [
      ...(options.documentBytes === undefined
        ? [`documents of ${ASSUMED_DOCUMENT_BYTES.toLocaleString('en-US')} bytes on average`]
        : []),
      ...assumed,
      // That nothing is recomputed is what everybody expects.
      ...decided
        .filter(({ value }) => value !== 'none')
        .map(({ key, value }) => `${key} ${value}, for this machine`),
    ],
  };
}

/** Whether the kernels of a GPU are made for a model. */
function takes(binding: NativeBinding, { model }: ResolvedConfig): boolean {
  try {
    binding.checkModelForCuda(JSON.stringify(model));
    return true;
  } catch {
    return false;
  }
}

/** Tokens of the whole run, by the limit that comes first; null where no limit can be counted. */
function tokensOf(config: ResolvedConfig, known: Known): { tokens: number | null; assumed: string[] } {
  const { training, data } = config;
  const perStep = training.global_batch_size * data.sequence_length;
  const documentTokens = Math.round((known.documentBytes ?? ASSUMED_DOCUMENT_BYTES) / BYTES_A_TOKEN);
  const counted = [
    training.max_steps === null ? Infinity : training.max_steps * perStep,
    training.max_tokens ?? Infinity,
  ];
  const byDocuments = data.max_samples === null ? Infinity : data.max_samples * documentTokens;
  const tokens = Math.min(...counted, byDocuments);
  return {
    tokens: Number.isFinite(tokens) ? tokens : null,
    assumed:
      Number.isFinite(byDocuments) && byDocuments < Math.min(...counted)
        ? [`${documentTokens.toLocaleString('en-US')} tokens a document, so that data.max_samples counts`]
        : [],
  };
}
