import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding, NativeTokenizer } from '../native/binding.js';
import { readApart } from './held-out.js';
import type { HeldOut } from './held-out.js';
import type { OpenCorpus, SourceConfig, SourceHooks } from './source.js';

/** The data that a run is evaluated on, where it is other than the training data; else null. */
export function evaluationSource({ data, evaluation }: ResolvedConfig): SourceConfig | null {
  const { dataset, split, config_name, text_column, revision } = evaluation;
  if (dataset === null && split === null) return null;
  const { batch_size, python, load_timeout, retry_budget } = data;
  const same = dataset === null || dataset === data.dataset;
  return {
    dataset: dataset ?? data.dataset,
    config_name: config_name ?? (same ? data.config_name : null),
    split: split ?? 'train',
    text_column: text_column ?? (same ? data.text_column : 'text'),
    text_template: same && text_column === null ? data.text_template : null,
    revision: revision ?? (same ? data.revision : null),
    batch_size,
    python,
    load_timeout,
    retry_budget,
  };
}

/**
 * Reads the documents of `from` that a run is evaluated on, and pins its revision in the configuration. Throws
 * DATASET_EMPTY, and the source's errors.
 */
export async function readEvaluationData(
  parts: {
    binding: NativeBinding;
    openCorpus: OpenCorpus;
    tokenizer: NativeTokenizer;
    config: ResolvedConfig;
  },
  from: SourceConfig,
  hooks: SourceHooks,
): Promise<HeldOut> {
  const { binding, openCorpus, tokenizer, config } = parts;
  const corpus = openCorpus(from, hooks);
  try {
    const { sources, release } = await corpus.open();
    try {
      const [source] = sources;
      if (source === undefined) throw errorFor('INTERNAL', 'no source was opened', 'please report this');
      config.evaluation.revision = source.ready.revision ?? config.evaluation.revision;
      const { batch_size: batchSize, threads } = config.data;
      const { documents } = config.evaluation;
      return await readApart(binding, source, tokenizer, {
        documents,
        batchSize,
        threads,
        signal: hooks.signal,
      });
    } finally {
      release();
    }
  } finally {
    await corpus.close();
  }
}
