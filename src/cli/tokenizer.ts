import { Command } from 'commander';
import { errorFor } from '../errors.js';
import { Tokenizer } from '../tokenizer/index.js';
import { inspectCommand } from './inspect.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

const TOKENIZER = 'directory of a tokenizer, or its tokenizer.json';

interface EncodeFlags extends OutputOptions {
  special: boolean;
  offsets?: boolean;
}

interface DecodeFlags extends OutputOptions {
  skipSpecial?: boolean;
}

/** `candlewick tokenizer inspect|encode|decode`. */
export function tokenizerCommand(): Command {
  const encode = new Command('encode')
    .description('print the token ids of a text')
    .argument('<dir>', TOKENIZER)
    .argument('[text]', 'text; stdin, as it is, when it is left out')
    .option('--no-special', 'take the spelling of special tokens as plain text, as documents are trained on')
    .option('--offsets', 'print a token a line: id, first byte, byte after the last, text')
    .addHelpText(
      'after',
      `
Examples:
  $ candlewick tokenizer encode artifacts/tokenizer/x "Once upon a time"
  $ candlewick tokenizer encode artifacts/tokenizer/x --offsets < README.md`,
    )
    .action(printIds);
  const decode = new Command('decode')
    .description('print the text of token ids')
    .argument('<dir>', TOKENIZER)
    .argument('[ids...]', 'token ids, separated by spaces or commas; stdin when they are left out')
    .option('--skip-special', 'leave special tokens out')
    .addHelpText(
      'after',
      `
Examples:
  $ candlewick tokenizer decode artifacts/tokenizer/x 314 15 92
  $ candlewick tokenizer encode artifacts/tokenizer/x "Once" | candlewick tokenizer decode artifacts/tokenizer/x`,
    )
    .action(printText);
  const command = new Command('tokenizer').description('look at what a tokenizer does');
  command.addCommand(inspectCommand());
  for (const verb of [encode, decode]) command.addCommand(addOutputOptions(verb));
  return command;
}

async function printIds(dir: string, text: string | undefined, flags: EncodeFlags): Promise<void> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const tokenizer = await Tokenizer.fromFile(dir);
  const bytes = text === undefined ? await readStdin(output) : Buffer.from(text);
  const { special } = flags;
  if (flags.offsets !== true) {
    const ids = [...tokenizer.encode(bytes, { special })];
    output.event({ type: 'encoded', ids });
    output.result(`${ids.join(' ')}\n`);
    return;
  }
  const { ids, offsets } = tokenizer.encodeWithOffsets(bytes, { special });
  output.event({ type: 'encoded', ids: [...ids], offsets: [...offsets] });
  const lines = Array.from(ids, (id, i) => {
    const [start, end] = offsets.subarray(2 * i, 2 * i + 2);
    return `${id}\t${start}\t${end}\t${quoted(tokenizer.decode([id]))}\n`;
  });
  output.result(lines.join(''));
}

async function printText(dir: string, given: string[], flags: DecodeFlags): Promise<void> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const tokenizer = await Tokenizer.fromFile(dir);
  const words = given.length > 0 ? given : [(await readStdin(output)).toString('utf8')];
  const numbers = words.flatMap((word) => word.split(/[\s,[\]]+/)).filter((word) => word !== '');
  for (const number of numbers) {
    if (!/^\d+$/.test(number) || Number(number) >= tokenizer.vocabSize) {
      throw errorFor(
        'USAGE',
        `${number} is not the id of a token`,
        `ids are whole numbers from 0 to ${tokenizer.vocabSize - 1}`,
      );
    }
  }
  const text = tokenizer.decode(numbers.map(Number), { skipSpecial: flags.skipSpecial === true });
  output.event({ type: 'decoded', text });
  output.result(`${text}\n`);
}

/** As JSON, without what moves a terminal's cursor or turns its direction of writing. */
function quoted(text: string): string {
  const escaped = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
  return JSON.stringify(text).replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, escaped);
}

async function readStdin(output: Output): Promise<Buffer> {
  if (process.stdin.isTTY)
    output.people.say('reading from the terminal; Ctrl+D on a line of its own ends it');
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
