import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { errorFor } from '../errors.js';
import { report, usageError } from './failures.js';
import { outliveTerminal } from './terminal.js';
import { verbs } from './verbs.js';
import type { Verb } from './verbs.js';

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
  try {
    if (name === 'candlewick' && argv.length === 0) {
      const names = verbs.map((verb) => verb.name).join(', ');
      throw errorFor('USAGE', 'a verb is missing', `one of ${names}; candlewick --help says what they do`);
    }
    const program = await programFor(name, argv[0]);
    await program.parseAsync(argv, { from: 'user' });
  } catch (cause) {
    if (cause instanceof CommanderError && cause.exitCode === 0) return;
    const error = cause instanceof CommanderError ? usageError(cause, helper(name, argv)) : cause;
    process.exitCode = report(error, argv.includes('--json'));
  }
  setTimeout(() => process.exit(), LINGER_MS).unref();
}

/** The program, with no more of it loaded than this command line needs. */
async function programFor(name: ProgramName, first: string | undefined): Promise<Command> {
  const program = await commandFor(name, first);
  program.version(version(), '--version', 'print the version');
  prepare(program);
  return program;
}

async function commandFor(name: ProgramName, first: string | undefined): Promise<Command> {
  if (name === 'train-streaming') return (await import('./train.js')).trainCommand(name, name);
  if (name === 'train-tokenizer-streaming') {
    return (await import('./train-tokenizer.js')).trainTokenizerCommand(name, name);
  }
  const program = new Command(name).description('pretrain a transformer from a stream').helpCommand(false);
  for (const verb of verbs) program.addCommand(verb.name === first ? await verb.load() : listed(verb));
  return program;
}

/** What stands in for a verb that was not asked for: its line in `--help`, and a name for "did you mean". */
function listed({ name, words, description, options }: Verb): Command {
  const command = new Command(name).description(description);
  if (words !== '') command.arguments(words);
  return options ? command.option('--json') : command;
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
  const verb = verbs.find((verb) => verb.name === argv[0]);
  return name === 'candlewick' && verb !== undefined ? `${name} ${verb.name}` : name;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
