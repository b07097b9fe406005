import { Command, Option } from 'commander';
import { exportModel } from '../export/index.js';
import type { ExportType } from '../export/index.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

interface ExportFlags extends OutputOptions {
  to: string;
  dtype: ExportType;
}

/** `candlewick export`. */
export function exportCommand(): Command {
  const command = new Command('export')
    .description('write a model as a directory that transformers loads, with its tokenizer and a model card')
    .argument('<dir>', 'run directory, checkpoint, or model directory')
    .requiredOption('--to <dir>', 'directory to write, new or empty')
    .addOption(
      new Option(
        '--dtype <type>',
        'how values are stored: f32 as they were trained, bf16 or f16 in half the size',
      )
        .choices(['f32', 'bf16', 'f16'])
        .default('f32'),
    );
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
The vocabulary's padding is left out. Weights beyond 5 GB are split, as transformers does.

Examples:
  $ candlewick export runs/quickstart --to models/quickstart
  $ candlewick export runs/quickstart/checkpoints/step-00000400 --to models/early --dtype bf16`,
    )
    .action(async (dir: string, flags: ExportFlags) => {
      process.exitCode = await run(dir, flags);
    });
}

async function run(dir: string, flags: ExportFlags): Promise<number> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const result = await exportModel(dir, flags.to, {
    dtype: flags.dtype,
    onSkipped: (path, reason) => output.people.warn(`${path} is damaged (${reason})`),
  });
  const parameters = result.parameters.toLocaleString('en-US');
  output.people.say(
    `${parameters} parameters of ${result.model} as ${result.dtype}: ${result.files.join(', ')}`,
  );
  output.people.say('README.md is the model card: read it, and choose a license, before you publish it');
  output.event({ type: 'done', ...result });
  output.result(`${result.output}\n`);
  return 0;
}
