import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding } from '../native/binding.js';
import { readRunConfig } from './directory.js';
import { findModel } from './model-source.js';

/** The model that a run starts from. */
export interface InitSource {
  directory: string;
  /** Where its tokenizer lies; null where there is none. */
  tokenizer: string | null;
  /** Rows of its embedding. */
  vocab_size: number;
}

/**
 * What `init_from` names, held against the model that is to start from it. Null where it names nothing, and for a run in
 * `output` that began before and whose model is gone: it has weights of its own. Throws CONFIG_INVALID,
 * CHECKPOINT_CORRUPT.
 */
export async function findInit(
  binding: NativeBinding,
  config: ResolvedConfig,
  output: string,
  warn: (message: string) => void,
): Promise<InitSource | null> {
  if (config.init_from === null) return null;
  const run = await readRunConfig(output);
  const begun = run?.init_from === config.init_from ? run : null;
  try {
    const { directory } = await findModel(config.init_from, (path, reason) => {
      warn(`${path} is damaged (${reason}): starting from the one before`);
    });
    const { vocab_size, tokenizer } = JSON.parse(binding.inspectModel(directory)) as Omit<
      InitSource,
      'directory'
    >;
    const model = { ...config.model, vocab_size: config.model.vocab_size ?? vocab_size };
    if (begun === null) binding.checkWeights(directory, JSON.stringify(model));
    return { directory, tokenizer, vocab_size };
  } catch (cause) {
    if (begun === null || begun.model.vocab_size === null) throw cause;
    config.model.vocab_size ??= begun.model.vocab_size;
    return null;
  }
}

/**
 * Rows of the embedding of a run that starts from weights: theirs. Throws TOKENIZER_MISMATCH for a tokenizer of more
 * tokens.
 */
export function initVocabSize(config: ResolvedConfig, init: InitSource | null, tokens: number): number {
  const rows = config.model.vocab_size ?? init?.vocab_size ?? tokens;
  if (tokens <= rows) return rows;
  const where = init?.directory ?? config.init_from;
  throw errorFor(
    'TOKENIZER_MISMATCH',
    `the tokenizer has ${tokens} tokens, and model.embed_tokens.weight of ${where} has shape [${rows}, ${config.model.hidden_size}]`,
    'leave the tokenizer out to use the one of the model, or name one with no more tokens',
  );
}
