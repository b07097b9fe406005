/** How fast a run may go: measured, said, or assumed; and the formula behind it. */
import type { ResolvedConfig } from '../config/index.js';

/** FLOPs of training on one token: forward and backward (twice the forward), no recomputation. */
export interface FlopsPerToken {
  /** 6 · parameters that take part in a product with the token: all but the embedding table and the norms. */
  products: number;
  /** 6 · layers · sequence_length · query width: scores and mixing of causal attention, the masked half not counted. */
  attention: number;
  total: number;
}

/** What the figure means, to be printed beside it. */
export const FLOPS_FORMULA =
  '6 · (parameters in products) + 6 · layers · sequence_length · heads · head_dim; attention causal, its masked half not counted';

/** FLOPs of a token; `vocabSize` rows in the output matrix. */
export function flopsPerToken({ model, data }: ResolvedConfig, vocabSize: number): FlopsPerToken {
  const { hidden_size: c, intermediate_size: i, num_hidden_layers: layers } = model;
  const q = model.num_attention_heads * model.head_dim;
  const kv = model.num_key_value_heads * model.head_dim;
  const products = 6 * (layers * (2 * c * q + 2 * c * kv + 3 * c * i) + vocabSize * c);
  const attention = 6 * layers * data.sequence_length * q;
  return { products, attention, total: products + attention };
}

/** Dense peak of a device in FLOP/s, at the precision that training would use there. */
export interface Peak {
  flops: number;
  precision: 'bf16' | 'f32';
}

/** Makers' figures for dense bf16 with f32 sums. */
export const devicePeaks: Readonly<Record<string, Peak>> = {
  a100: { flops: 312e12, precision: 'bf16' },
  h100: { flops: 989e12, precision: 'bf16' },
  h200: { flops: 989e12, precision: 'bf16' },
  l40s: { flops: 362e12, precision: 'bf16' },
  'rtx-4090': { flops: 165e12, precision: 'bf16' },
  'rtx-5090': { flops: 209e12, precision: 'bf16' },
};

/** Share of the peak that an engine on a GPU is assumed to reach where nobody says better. */
export const ASSUMED_MFU = 0.4;

/** What a thread of a processor with wide registers was seen to reach in a step (bench/RESULTS.md, the quickstart). */
export const ASSUMED_FLOPS_A_THREAD = 60e9;

/** A speed and where it comes from. */
export interface Speed {
  tokensPerSecond: number;
  source: 'given' | 'measured' | 'assumed';
  /** For people: the assumption, or what was measured. */
  basis: string;
}

/** The speed on a named GPU at a share of its peak. */
export function assumedGpuSpeed(name: string, flops: number, mfu = ASSUMED_MFU): Speed | null {
  const peak = devicePeaks[name];
  if (peak === undefined) return null;
  return {
    tokensPerSecond: (mfu * peak.flops) / flops,
    source: 'assumed',
    basis: `${(100 * mfu).toFixed(0)} % MFU of a peak of ${(peak.flops / 1e12).toFixed(0)} TFLOP/s (${name}, dense ${peak.precision})`,
  };
}

/** The speed on this machine's processors. */
export function assumedCpuSpeed(threads: number, flops: number): Speed {
  return {
    tokensPerSecond: (threads * ASSUMED_FLOPS_A_THREAD) / flops,
    source: 'assumed',
    basis: `${ASSUMED_FLOPS_A_THREAD / 1e9} GFLOP/s on each of ${threads} ${threads === 1 ? 'thread' : 'threads'}; --measure tells`,
  };
}

/** GPUs by what their names have, the special before the general: dense peak in bf16 with f32 sums, makers' figures. */
const gpuPeaks: readonly [RegExp, number][] = [
  [/\bH100 PCIe\b/i, 756e12],
  [/\bH100 NVL\b/i, 835e12],
  [/\bH100\b/, 989e12],
  [/\bH200 NVL\b/i, 835e12],
  [/\bH200\b/, 989e12],
  [/\bA100\b/, 312e12],
  [/\bL40S\b/, 362e12],
  [/\bRTX 4090$/, 165e12],
  [/\bRTX 5090$/, 209e12],
];

/** Dense peak of a GPU by the name that its driver gives, in FLOP/s; null for one that is not known. */
export function gpuPeak(name: string): number | null {
  return gpuPeaks.find(([pattern]) => pattern.test(name))?.[1] ?? null;
}

/**
 * The share of the GPU's peak that a speed is, by {@link FLOPS_FORMULA}; null for a GPU that is not known, and no function
 * at all where the run is on the CPU.
 */
export function mfuOf(
  config: ResolvedConfig,
  gpuName: string | null,
): ((tokensPerSecond: number) => number | null) | null {
  if (config.training.device === 'cpu') return null;
  const peak = gpuName === null ? null : gpuPeak(gpuName);
  const { total } = flopsPerToken(config, config.model.vocab_size ?? 0);
  return (tokensPerSecond) => (peak === null ? null : (total * tokensPerSecond) / peak);
}
