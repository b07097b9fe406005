import { Command } from 'commander';
import { errorFor } from '../errors.js';
import { native } from '../native/index.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** `candlewick tokenizer encode|decode`. */
export function tokenizerCommand(): Command {
  const command = new Command('tokenizer').description('look at what a tokenizer does');
  const encode = new Command('encode')
    .description('print the token ids of a text')
    .argument('<dir>', 'directory of a tokenizer, or its tokenizer.json')
    .argument('[text]', 'text; stdin when it is left out')
    .action(async (dir: string, text: string | undefined, flags: OutputOptions) => {
      ignoreClosedPipes(true);
      const output = new Output(flags);
      const tokenizer = await native().tokenizerFromPath(dir);
      const ids = [...tokenizer.encode(text ?? (await readStdin()))];
      output.event({ type: 'encoded', ids });
      output.result(`${ids.join(' ')}\n`);
    });
  const decode = new Command('decode')
    .description('print the text of token ids')
    .argument('<dir>', 'directory of a tokenizer, or its tokenizer.json')
    .argument('[ids...]', 'token ids; stdin when they are left out')
    .action(async (dir: string, ids: string[], flags: OutputOptions) => {
      ignoreClosedPipes(true);
      const output = new Output(flags);
      const tokenizer = await native().tokenizerFromPath(dir);
      const words = ids.length > 0 ? ids : [(await readStdin()).toString('utf8')];
      const numbers = words.flatMap((word) => word.split(/[\s,[\]]+/)).filter((word) => word !== '');
      for (const number of numbers) {
        if (!/^\d+$/.test(number) || Number(number) >= tokenizer.vocabSize()) {
          throw errorFor(
            'USAGE',
            `${number} is not the id of a token`,
            `ids are whole numbers from 0 to ${tokenizer.vocabSize() - 1}`,
          );
        }
      }
      const text = tokenizer.decode(Uint32Array.from(numbers, Number), false);
      output.event({ type: 'decoded', text });
      output.result(`${text}\n`);
    });
  for (const verb of [encode, decode]) command.addCommand(addOutputOptions(verb));
  return command;
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
