/** Where text comes from. */
export type { ReadyMessage } from './messages.js';
export type { OpenCorpus, SourceIdentity, StreamingCorpus } from './corpus.js';
export {
  describe,
  HuggingFaceStreamingCorpus,
  type HuggingFaceCorpusOptions,
  type OpenDataset,
  type SourceDescription,
} from './huggingface.js';
export { type ProcessCorpusOptions, ProcessStreamingCorpus } from './process.js';
export type { ProgressEvent } from './program-runs.js';
export { findPython, type Python, type PythonSearch } from './python.js';
export { type SourceEvent, sourceInWords } from './notices.js';
