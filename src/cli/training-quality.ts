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

/** How long a source may take to give them again. */
const PATIENCE_MS = 20_000;

/**
 * Reads the first documents again and prints how they are encoded; nothing where there is no stream. The tokenizer is
 * there already, so that a source that fails or hangs now spoils nothing.
 */
export async function tellQuality(
  tokenizer: NativeTokenizer,
  sources: readonly OpenSource[],
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  if (sources.length === 0) return;
  const patience = AbortSignal.timeout(PATIENCE_MS);
  try {
    const facts = JSON.parse(await tokenizer.facts()) as TokenizerFacts;
    const sample = await sampleOfStream(tokenizer, sources, DOCUMENTS, AbortSignal.any([signal, patience]));
    for (const line of summaryInWords(facts, sample)) output.people.say(line);
    output.event({ type: 'quality', tokenizer: facts, sample });
  } catch (cause) {
    if (!(cause instanceof CandlewickError)) throw cause;
    const why = patience.aborted ? 'the source does not answer' : cause.message;
    if (!signal.aborted) output.people.warn(`no report of the quality: ${why}`);
  }
}
