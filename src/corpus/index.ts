/** Where text comes from. */
export type { ReadyMessage } from './messages.js';
export {
  describe,
  HuggingFaceStreamingCorpus,
  type HuggingFaceCorpusOptions,
  type OpenCorpus,
  type SourceDescription,
} from './huggingface.js';
export { findPython, type Python, type PythonSearch } from './python.js';
export type { SourceEvent } from './streamer.js';
