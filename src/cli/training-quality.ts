/** What a trained tokenizer makes of the stream that it was trained on: the last lines of a training. */
import { CandlewickError } from '../errors.js';
import type { NativeTokenizer } from '../native/binding.js';
import type { OpenSource } from '../run/index.js';
import { sampleOfStream } from '../tokenizer/index.js';
import type { TokenizerFacts } from '../tokenizer/index.js';
import { summaryInWords } from './inspect-report.js';
import type { Output } from './output.js';

/** Documents that are read again for it. */
const DOCUMENTS = 1000;

/** Reads the first documents again and prints how they are encoded. A source that fails now spoils nothing. */
export async function tellQuality(
  tokenizer: NativeTokenizer,
  sources: readonly OpenSource[],
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  try {
    const facts = JSON.parse(await tokenizer.facts()) as TokenizerFacts;
    const sample = await sampleOfStream(tokenizer, sources, DOCUMENTS, signal);
    for (const line of summaryInWords(facts, sample)) output.people.say(line);
    output.event({ type: 'quality', tokenizer: facts, sample });
  } catch (cause) {
    if (!(cause instanceof CandlewickError)) throw cause;
    if (cause.code !== 'ABORTED') output.people.warn(`no report of the quality: ${cause.message}`);
  }
}
