import type { ResolvedConfig } from '../config/index.js';
import type { NativeTokenizer } from '../native/binding.js';
import { sha256 } from './disk.js';
import { mismatch } from './resume.js';
import type { OpenSource } from './source.js';
import { heldOutDocuments } from './stream.js';

/** What one source is, as far as its documents and their order go. */
interface SourceStream {
  dataset: string;
  config_name: string | null;
  split: string;
  revision: string | null;
  /** SHA-256 of the sorted file list. */
  files: string;
  text_column: string;
  text_template: string | null;
}

/** What a stream of tokens is a function of: a run goes on only on the same. A stream of one source names it here. */
export interface StreamIdentity extends Partial<SourceStream> {
  /** Those of a mixture. */
  sources?: (SourceStream & { weight: number; on_exhausted: string })[];
  seed: number;
  shuffle_buffer_size: number;
  sequence_length: number;
  /** Documents held out of each source. */
  held_out: number;
  /** Digest of the tokenizer. */
  tokenizer: string;
}

/** The identity of a stream that is open. */
export function identityOf(
  config: ResolvedConfig,
  sources: readonly OpenSource[],
  tokenizer: NativeTokenizer,
): StreamIdentity {
  const [only] = sources;
  return {
    ...(config.data.sources === null && only !== undefined
      ? sourceStream(only)
      : {
          sources: sources.map((source) => ({
            ...sourceStream(source),
            weight: source.weight,
            on_exhausted: source.on_exhausted,
          })),
        }),
    seed: config.data.seed,
    shuffle_buffer_size: config.data.shuffle_buffer_size,
    sequence_length: config.data.sequence_length,
    held_out: heldOutDocuments(config),
    tokenizer: tokenizer.digest(),
  };
}

function sourceStream({ ready }: OpenSource): SourceStream {
  const { dataset, config_name, split, revision, files, text_column, text_template = null } = ready;
  const digest = sha256(files.map((file) => `${file}\n`).join(''));
  return { dataset, config_name, split, revision, files: digest, text_column, text_template };
}

/** Throws RESUME_MISMATCH when a checkpoint's weights were trained on other tokens than these. */
export function compareTokenizer(where: string, old: StreamIdentity, now: StreamIdentity): void {
  compareIdentity(where, { ...now, tokenizer: old.tokenizer }, now);
}

/** Throws RESUME_MISMATCH when a checkpoint's stream is another than the one that was opened. */
export function compareIdentity(
  where: string,
  old: StreamIdentity,
  now: StreamIdentity,
  hint?: string,
): void {
  const [before, after] = [namedValues(old), namedValues(now)];
  const differences = [...new Set([...after.keys(), ...before.keys()])]
    .map((key) => ({ key, old: before.get(key) ?? null, new: after.get(key) ?? null }))
    .filter((difference) => difference.old !== difference.new);
  if (differences.length > 0) throw mismatch(where, differences, hint);
}

/** Every value by the key of the configuration that decides it. */
function namedValues({ sources, ...rest }: StreamIdentity): Map<string, unknown> {
  const own: Record<string, string> = {
    held_out: 'evaluation.documents',
    tokenizer: 'tokenizer (digest)',
    files: 'file list of the dataset (digest)',
  };
  const values = new Map(Object.entries(rest).map(([key, value]) => [own[key] ?? `data.${key}`, value]));
  for (const [i, source] of sources?.entries() ?? []) {
    for (const [key, value] of Object.entries(source)) {
      values.set(`data.sources[${i}].${key === 'files' ? 'file list (digest)' : key}`, value);
    }
  }
  return values;
}
