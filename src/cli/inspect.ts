import { Command } from 'commander';
import { HuggingFaceStreamingCorpus } from '../corpus/index.js';
import { EnvironmentError, errorFor } from '../errors.js';
import { StopSignals } from '../run/index.js';
import { Tokenizer } from '../tokenizer/index.js';
import type { Text, TokenizerReport } from '../tokenizer/index.js';
import { knownTokenizers } from '../tokenizer/known.js';
import { needsStreamer, textsOf } from '../tokenizer/texts.js';
import { reportInWords } from './inspect-report.js';
import { addOutputOptions, collect, wholeNumber } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

interface InspectFlags extends OutputOptions {
  text?: string[];
  textColumn?: string;
  maxSamples?: number;
  compare?: string[];
}

/** `candlewick tokenizer inspect`. */
export function inspectCommand(): Command {
  const command = new Command('inspect')
    .description(
      'say what a tokenizer is and how it does on text: compression, fertility by script, unused tokens',
    )
    .argument('<dir>', 'directory of a tokenizer, or its tokenizer.json')
    .option(
      '--text <file>',
      'text to measure on, may be repeated: a text file (one document), .jsonl, or .parquet, .gz, .zst and ' +
        'directories through the streamer (default: the dataset sample)',
      collect,
    )
    .option('--text-column <name>', 'column that holds the text (default: text)')
    .option('--max-samples <n>', 'documents to read at most', wholeNumber)
    .option('--compare <dir>', 'another tokenizer to compress the same text with; may be repeated', collect);
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
GPT-2's, cl100k's and o200k's tokenizers are compared where their files are in the cache of the Hugging Face Hub or
of tiktoken; nothing is downloaded.

Examples:
  $ candlewick tokenizer inspect artifacts/tokenizer/runpod-1b
  $ candlewick tokenizer inspect runs/first --text held-out.jsonl --compare artifacts/tokenizer/other`,
    )
    .action(async (dir: string, flags: InspectFlags) => {
      process.exitCode = await inspect(dir, flags);
    });
}

async function inspect(dir: string, flags: InspectFlags): Promise<number> {
  if (flags.maxSamples === 0) throw errorFor('USAGE', '--max-samples is 0', 'it must be 1 or more');
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const { people } = output;
  using signals = new StopSignals((name) => people.warn(`${name}: stopping`));
  const { signal } = signals;
  try {
    const tokenizer = await Tokenizer.fromFile(dir);
    const { tokenizers: compareWith, missing, problems } = await knownTokenizers();
    for (const problem of problems) people.warn(problem);
    for (const other of flags.compare ?? []) compareWith[other] = await Tokenizer.fromFile(other);
    const { maxSamples } = flags;
    const { text: paths = [], textColumn = 'text' } = flags;
    people.status(`reading ${paths.length === 0 ? 'the dataset sample' : paths.join(', ')}`);
    const report =
      paths.length === 0
        ? await onSample(tokenizer, compareWith, maxSamples, output, signal)
        : await tokenizer.inspect(textsIn(paths, textColumn, signal), { maxSamples, compareWith, signal });
    people.close();
    output.event({ type: 'inspected', ...report, not_compared: missing });
    output.result(reportInWords(dir, report, missing));
    return 0;
  } catch (cause) {
    if (signals.exitCode === null) throw cause;
    return signals.exitCode;
  } finally {
    people.close();
  }
}

/** On the dataset `sample`; on no text at all where there is no Python to read it with. */
async function onSample(
  tokenizer: Tokenizer,
  compareWith: Record<string, Tokenizer>,
  maxSamples: number | undefined,
  output: Output,
  signal: AbortSignal,
): Promise<TokenizerReport> {
  await using corpus = new HuggingFaceStreamingCorpus('sample', { signal });
  try {
    return await tokenizer.inspect(corpus, { maxSamples, compareWith, signal });
  } catch (cause) {
    if (!(cause instanceof EnvironmentError)) throw cause;
    output.people.warn(`the dataset sample cannot be read: ${cause.message}; --text FILE needs no Python`);
    return tokenizer.inspect();
  }
}

async function* textsIn(
  paths: readonly string[],
  textColumn: string,
  signal: AbortSignal,
): AsyncGenerator<Text, void, undefined> {
  for (const path of paths) {
    if (await needsStreamer(path)) {
      await using corpus = new HuggingFaceStreamingCorpus(path, { textColumn, signal });
      yield* corpus.stream();
    } else yield* textsOf(path, textColumn);
  }
}
