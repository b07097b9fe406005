import type { oneSourceKeys } from '../config/index.js';
import { HuggingFaceStreamingCorpus, MultiCorpus, sourceInWords } from '../corpus/index.js';
import { native } from '../native/index.js';
import type { SourceConfig, SourceHooks, TrainableCorpus } from './source.js';
import type { TrainerParts } from './trainer.js';

/** What a trainer is built upon outside of tests. Throws NATIVE_NOT_FOUND. */
export function defaultParts(): TrainerParts {
  return { binding: native(), openCorpus };
}

/** Makes the corpus that a configuration names; nothing is opened yet. */
export function openCorpus(data: SourceConfig, hooks: SourceHooks): TrainableCorpus {
  const { sources } = data;
  if (!sources) return corpusOf(data, data, hooks, '');
  return new MultiCorpus(
    sources.map((source, i) => ({
      corpus: corpusOf(source, data, hooks, `sources[${i}] (${source.dataset}): `),
      weight: source.weight,
      onExhausted: source.on_exhausted,
    })),
    { batchSize: data.batch_size },
  );
}

/** `name` comes before what is told about this source. */
function corpusOf(
  source: Pick<SourceConfig, (typeof oneSourceKeys)[number]>,
  data: SourceConfig,
  hooks: SourceHooks,
  name: string,
): HuggingFaceStreamingCorpus {
  return new HuggingFaceStreamingCorpus(source.dataset ?? '', {
    configName: source.config_name,
    split: source.split,
    textColumn: source.text_column,
    textTemplate: source.text_template,
    batchSize: data.batch_size,
    revision: source.revision,
    python: data.python ?? undefined,
    loadTimeout: data.load_timeout,
    retryBudget: data.retry_budget,
    signal: hooks.signal,
    onEvent: (event) => {
      const message = sourceInWords(event);
      if (message === null || event.type === 'loading' || event.type === 'ready') return;
      const { type: kind, ...details } = event;
      hooks.notice?.({ ...details, kind, message: name + message });
    },
  });
}
