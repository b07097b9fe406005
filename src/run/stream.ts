import { rangesOf } from '../config/index.js';
import type { Range, ResolvedConfig } from '../config/index.js';
import { feedSources, linksOf } from '../corpus/index.js';
import type { NativeBinding, NativeFeed, NativeTokenizer } from '../native/binding.js';
import { holdOut } from './held-out.js';
import type { HeldOut } from './held-out.js';
import type { OpenSource } from './source.js';

/** What a stream of tokens is made of, opened. */
export interface StreamParts {
  binding: NativeBinding;
  config: ResolvedConfig;
  sources: readonly OpenSource[];
  tokenizer: NativeTokenizer;
  heldOut: HeldOut | null;
}

/** Documents of each source that are held out: none where the run is evaluated on other data. */
export function heldOutDocuments({ evaluation }: ResolvedConfig): number {
  return evaluation.dataset === null && evaluation.split === null ? evaluation.documents : 0;
}

/** Holds out the documents that the configuration says; null for none. Throws CONFIG_INVALID. */
export async function heldOutOf(
  parts: Omit<StreamParts, 'heldOut'>,
  signal: AbortSignal | undefined,
): Promise<HeldOut | null> {
  const { binding, config, sources, tokenizer } = parts;
  const documents = heldOutDocuments(config);
  if (documents === 0) return null;
  const { batch_size: batchSize, threads } = config.data;
  return holdOut(binding, sources, tokenizer, { documents, batchSize, threads, signal });
}

/**
 * The batches that a run trains on, those left out aside: what the trainer reads and what is replayed later. Goes on
 * from `state`; with `reset` the data start over there, and only counters and hash go on. Throws RESUME_MISMATCH,
 * CHECKPOINT_CORRUPT.
 */
export function streamFeed(
  { binding, config, sources, tokenizer, heldOut }: StreamParts,
  from: { state: string | null; reset?: boolean; skip?: readonly Range[]; maxSamples?: number | null },
): NativeFeed {
  const { data, training } = config;
  const { state, reset = false, skip = rangesOf(data.skip_steps), maxSamples = data.max_samples } = from;
  return binding.createFeed(
    {
      sources: feedSources(sources, heldOut?.ends),
      order: 'shuffled',
      seed: data.seed,
      shuffle_buffer_size: data.shuffle_buffer_size,
      batch_size: data.batch_size,
      epochs: data.epochs,
      max_samples: maxSamples,
      threads: data.threads,
      batches: {
        rows: training.global_batch_size,
        sequence_length: data.sequence_length,
        rank: 0,
        world_size: 1,
      },
      skip: skip.map(([first, last]) => [first, last]),
      ...(state === null ? {} : { state, reset }),
    },
    linksOf(sources),
    tokenizer,
  );
}
