/** Where text comes from. */
export type { ReadyMessage } from './messages.js';
export { feedSources, linksOf } from './corpus.js';
export type { OnExhausted, OpenCorpus, OpenSource, SourceIdentity, StreamingCorpus } from './corpus.js';
export {
  describe,
  HuggingFaceStreamingCorpus,
  type HuggingFaceCorpusOptions,
  type OpenDataset,
  type SourceDescription,
} from './huggingface.js';
export { MultiCorpus, type Member, type MultiCorpusOptions } from './multi.js';
export { type ProcessCorpusOptions, ProcessStreamingCorpus } from './process.js';
export type { ProgressEvent } from './program-runs.js';
export { findPython, type Python, type PythonSearch } from './python.js';
export { type SourceEvent, sourceInWords } from './notices.js';
