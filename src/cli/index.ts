import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { errorFor } from '../errors.js';
import { dashCommand } from './dash.js';
import { dataCommand } from './data.js';
import { doctorCommand } from './doctor.js';
import { exportCommand } from './export.js';
import { estimateCommand } from './estimate.js';
import { generateCommand } from './generate.js';
import { report, usageError } from './output.js';
import { runsCommand } from './runs.js';
import { setupCommand } from './setup.js';
import { outliveTerminal } from './terminal.js';
import { tokenizerCommand } from './tokenizer.js';
import { trainTokenizerCommand } from './train-tokenizer.js';
import { trainCommand } from './train.js';

/** The programs of the package. */
export type ProgramName = 'candlewick' | 'train-streaming' | 'train-tokenizer-streaming';

/** How long a process may outlive its command, should something keep it alive. */
const LINGER_MS = 5_000;

/** Runs a program with the process's arguments and sets its exit code. */
export async function main(
  name: ProgramName,
  argv: readonly string[] = process.argv.slice(2),
): Promise<void> {
  outliveTerminal();
  const program = programOf(name);
  try {
    if (name === 'candlewick' && argv.length === 0) {
      const verbs = program.commands.map((command) => command.name()).join(', ');
      throw errorFor('USAGE', 'a verb is missing', `one of ${verbs}; candlewick --help says what they do`);
    }
    await program.parseAsync(argv, { from: 'user' });
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return;
    const error = cause instanceof CommanderError ? usageError(cause, helper(name, argv)) : cause;
    process.exitCode = report(error, argv.includes('--json'));
  }
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

function programOf(name: ProgramName): Command {
  const program =
    name === 'train-streaming'
      ? trainCommand(name, name)
      : name === 'train-tokenizer-streaming'
        ? trainTokenizerCommand(name, name)
        : new Command(name)
            .description('pretrain a transformer from a stream')
            .addCommand(trainCommand('train', 'candlewick train'))
            .addCommand(trainTokenizerCommand('train-tokenizer', 'candlewick train-tokenizer'))
            .addCommand(estimateCommand())
            .addCommand(generateCommand())
            .addCommand(exportCommand())
            .addCommand(runsCommand())
            .addCommand(tokenizerCommand())
            .addCommand(dataCommand())
            .addCommand(dashCommand())
            .addCommand(setupCommand())
            .addCommand(doctorCommand())
            .helpCommand(false);
  program.version(version(), '--version', 'print the version');
  prepare(program);
  return program;
}

/** Errors are thrown and printed by us, in one form. */
function prepare(command: Command): void {
  command
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .helpOption('--help', 'print this');
  for (const below of command.commands) prepare(below);
}

/** The command whose `--help` helps. */
function helper(name: ProgramName, argv: readonly string[]): string {
  const verb = argv[0] ?? '';
  return name === 'candlewick' &&
    /^[a-z]/.test(verb) &&
    programOf(name).commands.some((command) => command.name() === verb)
    ? `${name} ${verb}`
    : name;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
