import { Command } from 'commander';
import { Model } from '../model/index.js';
import type { LoadOptions } from '../model/index.js';
import { findModel, StopSignals } from '../run/index.js';
import { addOutputOptions, anyNumber, deviceName, wholeNumber } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** How text is continued. */
interface Sampling {
  maxTokens: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  seed?: number;
}

interface GenerateFlags extends OutputOptions, Sampling {
  prompt: string;
  device: NonNullable<LoadOptions['device']>;
}

/** `candlewick generate`. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description('continue a text with a trained model')
    .argument('<dir>', 'run directory, checkpoint, or model directory')
    .requiredOption('--prompt <text>', 'text to continue')
    .option('--max-tokens <n>', 'tokens to write at most', wholeNumber, 128)
    .option('--temperature <t>', '0 always takes the likeliest token', anyNumber, 0.8)
    .option('--top-k <k>', 'choose among the k likeliest tokens', wholeNumber)
    .option('--top-p <p>', 'choose among the likeliest tokens of this much probability', anyNumber)
    .option('--seed <n>', 'seed of the choice', wholeNumber, 1)
    .option('--device <name>', 'where to generate: cpu, cuda, auto, or cuda:N', deviceName, 'auto');
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  $ candlewick generate runs/quickstart --prompt "def "
  $ candlewick generate runs/quickstart/checkpoints/step-00000100 --prompt "The" --temperature 0
  $ candlewick generate models/exported --prompt "Once" --top-p 0.9 --json`,
    )
    .action(async (dir: string, flags: GenerateFlags) => {
      process.exitCode = await generate(dir, flags);
    });
}

async function generate(dir: string, flags: GenerateFlags): Promise<number> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  using signals = new StopSignals(() => undefined);
  const { directory } = await findModel(dir, (path, reason) =>
    output.people.warn(`${path} is damaged (${reason})`),
  );
  const pieces: string[] = [];
  output.result(flags.prompt);
  for await (const piece of continueText(directory, flags.prompt, flags, signals.signal)) {
    pieces.push(piece);
    output.event({ type: 'piece', text: piece });
    output.result(piece);
  }
  output.result('\n');
  output.event({ type: 'done', model: directory, prompt: flags.prompt, text: pieces.join('') });
  return signals.exitCode ?? 0;
}

/** Pieces of text that the model in `directory` continues `prompt` with. */
async function* continueText(
  directory: string,
  prompt: string,
  sampling: Sampling & Pick<GenerateFlags, 'device'>,
  signal?: AbortSignal,
): AsyncGenerator<string, void, undefined> {
  await using model = await Model.load(directory, { device: sampling.device });
  yield* model.generate(prompt, { ...sampling, signal });
}
