import { Command } from 'commander';
import { errorFor } from '../errors.js';
import { defaultParts, peekBatch, StopSignals } from '../run/index.js';
import type { PeekedBatch, PeekedDocument } from '../run/index.js';
import { addOutputOptions, wholeNumber } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** Characters of text shown where no terminal says how wide it is. */
const WIDTH = 160;

interface PeekFlags extends OutputOptions {
  batch: number;
  rows?: number;
  documents?: number;
  tokens?: boolean;
}

/** `candlewick data peek`. */
export function peekCommand(): Command {
  const command = new Command('peek')
    .description('print the documents of a batch: where they came from, and where they lie in it')
    .argument('<run-or-config>', 'run directory, or a configuration')
    .option('--batch <n>', 'global batch, from 1; batch n is what step n trains on', wholeNumber, 1)
    .option('--rows <n>', 'only documents in the first n sequences of the batch', wholeNumber)
    .option('--documents <n>', 'documents to print at most', wholeNumber)
    .option('--tokens', 'print the ids of tokens and their spellings');
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  $ candlewick data peek runs/quickstart --batch 1234
  $ candlewick data peek configs/quickstart.yaml --documents 3 --tokens`,
    )
    .action(async (path: string, flags: PeekFlags) => {
      process.exitCode = await peek(path, flags);
    });
}

async function peek(path: string, flags: PeekFlags): Promise<number> {
  if (flags.batch < 1) throw errorFor('USAGE', 'there is no batch 0', 'batches are counted from 1');
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const { people } = output;
  using signals = new StopSignals((name) => people.warn(`${name}: stopping`));
  try {
    const found = await peekBatch(path, defaultParts(), {
      batch: flags.batch,
      signal: signals.signal,
      say: (message) => people.say(message),
      warn: (message) => people.warn(message),
      onProgress: (done, all) => people.status(`passing over batches: ${done}/${all}`),
    });
    people.close();
    const { rows = Infinity, documents: most = Infinity } = flags;
    const shown = found.documents.filter(({ begin }) => begin.row < rows).slice(0, most);
    output.event({ ...found, documents: shown });
    output.result(batchInWords(found, shown, flags.tokens === true));
    return 0;
  } catch (cause) {
    if (signals.exitCode === null) throw cause;
    return signals.exitCode;
  } finally {
    people.close();
  }
}

const count = (n: number) => n.toLocaleString('en-US');

function batchInWords(found: PeekedBatch, shown: readonly PeekedDocument[], tokens: boolean): string {
  const { batch, step, rows, sequence_length, documents } = found;
  const which = step === null ? 'left out' : `step ${count(step)}`;
  const all = `${count(documents.length)} ${documents.length === 1 ? 'document' : 'documents'}`;
  const head = `batch ${count(batch)} (${which}): ${count(rows)} × ${count(sequence_length)} tokens, ${all}`;
  const less = shown.length < documents.length ? `, ${count(shown.length)} shown` : '';
  return [`${head}${less}`, ...shown.map((document) => documentInWords(document, tokens)), ''].join('\n');
}

function documentInWords(document: PeekedDocument, tokens: boolean): string {
  const { dataset, file, row_group, row, epoch, length, offset, begin, end, text, ids, spellings } = document;
  const width = process.stdout.columns ?? WIDTH;
  const group = row_group === null ? '' : `row group ${row_group}, `;
  const lines = [
    '',
    `${dataset}: ${file}, ${group}row ${count(row)}, epoch ${epoch}`,
    `  tokens ${count(offset + 1)}–${count(offset + document.tokens)} of ${count(length)}, ` +
      `from row ${begin.row}, column ${begin.column} to row ${end.row}, column ${end.column}`,
    `  ${cut(JSON.stringify(text), Math.max(20, width - 2))}`,
  ];
  if (tokens) lines.push(`  ${ids.map((id, i) => `${id} ${JSON.stringify(spellings[i])}`).join('  ')}`);
  return lines.join('\n');
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`;
}
