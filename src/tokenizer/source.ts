import type { StreamingCorpus } from '../corpus/index.js';

/** A text: a string, or UTF-8 bytes (what is not UTF-8 in them becomes U+FFFD). */
export type Text = string | Uint8Array;

/** What a tokenizer can be trained on: a corpus, whose text stays native, or anything that gives texts. */
export type TextSource = StreamingCorpus | AsyncIterable<Text> | Iterable<Text>;

/** Whether text can be read without bringing it into JavaScript. */
export function isCorpus(source: TextSource): source is StreamingCorpus {
  return typeof source === 'object' && 'open' in source && typeof source.open === 'function';
}
