import { HuggingFaceStreamingCorpus, sourceInWords } from '../corpus/index.js';
import { native } from '../native/index.js';
import type { SourceConfig, SourceHooks, TrainableCorpus } from './source.js';
import type { TrainerParts } from './trainer.js';

/** What a trainer is built upon outside of tests. Throws NATIVE_NOT_FOUND. */
export function defaultParts(): TrainerParts {
  return { binding: native(), openCorpus };
}

/** Makes the corpus that a configuration names; nothing is opened yet. */
export function openCorpus(data: SourceConfig, hooks: SourceHooks): TrainableCorpus {
  return new HuggingFaceStreamingCorpus(data.dataset, {
    configName: data.config_name,
    split: data.split,
    textColumn: data.text_column,
    textTemplate: data.text_template,
    batchSize: data.batch_size,
    revision: data.revision,
    python: data.python ?? undefined,
    loadTimeout: data.load_timeout,
    retryBudget: data.retry_budget,
    signal: hooks.signal,
    onEvent: (event) => {
      const message = sourceInWords(event);
      if (message === null || event.type === 'loading' || event.type === 'ready') return;
      const { type: kind, ...details } = event;
      hooks.notice?.({ ...details, kind, message });
    },
  });
}
