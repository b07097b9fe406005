import { paddedVocabSize } from '../config/index.js';
import type { ResolvedConfig } from '../config/index.js';
import { hostMemory } from './host.js';
import type { EngineShape, NativeBinding, RunMemory } from '../native/binding.js';

/** Mean UTF-8 bytes of a document where nobody has counted: web text has 3,000 to 4,000. */
export const ASSUMED_DOCUMENT_BYTES = 4_000;

/** What a process of ours holds before it streams or trains: Node, JavaScript, the loaded binary. */
export const PROCESS_BYTES = 90e6;

/** What is known better than assumed. */
export interface Known {
  /** Tokens of the tokenizer; else those that it will be trained to, or those of the model. */
  tokenizerSize?: number;
  documentBytes?: number;
  /** Bytes that the run may take; default: what is free on this machine. */
  memoryAvailable?: number;
  /** Bytes of the GPU that the run may take; default: what is free there. */
  gpuAvailable?: number;
}

/** Tokens of the tokenizer, as far as the configuration says; null where only the tokenizer itself knows. */
export function tokenizerSizeOf(config: ResolvedConfig): number | null {
  return config.tokenizer.train?.vocab_size ?? config.model.vocab_size;
}

/** What decides how large the engine is. */
export function engineShapeOf(config: ResolvedConfig, known: Known = {}): EngineShape {
  const { model, data, training } = config;
  const tokenizer = known.tokenizerSize ?? tokenizerSizeOf(config) ?? 0;
  return {
    model: { ...model, vocab_size: model.vocab_size ?? paddedVocabSize(tokenizer) },
    sequence_length: data.sequence_length,
    micro_batch_size: training.micro_batch_size,
    global_batch_size: training.global_batch_size,
    threads: training.threads,
    recompute: training.recompute,
    moments: config.optimizer.moments,
    device: training.device,
  };
}

/**
 * What a run with this configuration will hold in memory, counted by the engine from the buffers that it makes.
 * `model.vocab_size` may be open where `known.tokenizerSize` or `tokenizer.train` says how large it will be. Throws
 * CONFIG_INVALID.
 */
export function memoryOf(binding: NativeBinding, config: ResolvedConfig, known: Known = {}): RunMemory {
  const { data, training, evaluation } = config;
  const sources = data.sources?.length ?? 1;
  return binding.estimateMemory(engineShapeOf(config, known), {
    feed: {
      sources,
      shuffle_buffer_size: data.shuffle_buffer_size,
      batch_size: data.batch_size,
      document_bytes: Math.round(known.documentBytes ?? ASSUMED_DOCUMENT_BYTES),
      batch_tokens: training.global_batch_size * data.sequence_length,
      threads: data.threads,
    },
    tokenizer: known.tokenizerSize ?? tokenizerSizeOf(config) ?? 0,
    held_out_documents: evaluation.documents * sources,
    process: PROCESS_BYTES,
    available: Math.floor(known.memoryAvailable ?? hostMemory().available),
  });
}
