/** A corpus and a tokenizer become batches of token ids. */
export { StreamingTextDataLoader, type LoaderBatch, type LoaderOptions, type LoaderStats } from './loader.js';
