/** `candlewick runs`: what became of the runs below a directory. */
import { Command } from 'commander';
import { errorFor } from '../errors.js';
import { duration, short } from '../run/index.js';
import { compareRuns, findRuns, readRun } from '../runs/index.js';
import type { Comparison, Run, RunSummary } from '../runs/index.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

interface RunsFlags extends OutputOptions {
  compare?: string[];
}

/** The verb `runs`, to be added to the program. */
export function runsCommand(): Command {
  const command = new Command('runs')
    .description('list runs: state, step, loss, speed, age, size; or compare several')
    .argument('[dir]', 'directory that runs lie below', 'runs')
    .option('--compare <run...>', 'say in which keys these runs differ, and how far each has come');
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
States: running (a process holds it), finished, stopped (the same command goes on), failed (with the error's code),
crashed (it ended without a word), new (no step yet).

Examples:
  $ candlewick runs
  $ candlewick runs --compare runs/quickstart runs/try`,
    )
    .action(async (directory: string, flags: RunsFlags) => {
      await (flags.compare === undefined ? list(directory, flags) : compare(flags.compare, flags));
    });
}

async function list(directory: string, flags: RunsFlags): Promise<void> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const found = await findRuns(directory);
  for (const { summary } of found) output.event({ type: 'run', ...summary });
  if (found.length === 0) output.people.say(`no run lies below ${directory}`);
  else output.result(tableOf(found.map(({ summary }) => cellsOf(summary))));
}

async function compare(paths: readonly string[], flags: RunsFlags): Promise<void> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  if (paths.length < 2) {
    throw errorFor('USAGE', '--compare names one run', 'name two or more: --compare runs/a runs/b');
  }
  const runs = await Promise.all(paths.map(async (path) => [path, await readRun(path)] as const));
  const missing = runs.find(([, run]) => run === null);
  if (missing !== undefined) {
    throw errorFor(
      'USAGE',
      `${missing[0]} is not the directory of a run`,
      'candlewick runs lists those there are',
    );
  }
  const comparison = compareRuns(runs.map(([, run]) => run).filter((run): run is Run => run !== null));
  output.event({ type: 'comparison', ...comparison });
  output.result(comparisonInWords(comparison));
}

const heads = ['run', 'state', 'step', 'loss', 'eval', 'tokens', 'tok/s', 'age', 'size'];

function cellsOf(run: RunSummary): string[] {
  const { step, max_steps: last } = run;
  return [
    run.path,
    run.error === null ? run.state : `${run.state} ${run.error}`,
    step === null ? '–' : `${step}${last === null ? '' : `/${last}`}`,
    run.loss?.toFixed(4) ?? '–',
    run.eval_loss?.toFixed(4) ?? '–',
    run.tokens === null ? '–' : short(run.tokens),
    run.tokens_per_second === null ? '–' : short(run.tokens_per_second),
    duration(Math.max(0, Date.now() / 1000 - run.updated)),
    `${short(run.bytes)}B`,
  ];
}

function tableOf(rows: readonly string[][], names: readonly string[] = heads): string {
  const all = [names, ...rows];
  const widths = names.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd();
  return `${all.map(line).join('\n')}\n`;
}

function comparisonInWords({ runs, differences }: Comparison): string {
  const value = (shown: unknown) => (shown === undefined ? '–' : JSON.stringify(shown));
  const names = ['', ...runs.map(({ path }) => path)];
  const cells = runs.map(cellsOf);
  const metrics = heads.slice(1).map((name, i) => [name].concat(cells.map((row) => row[i + 1] ?? '')));
  const keys = differences.map(({ key, values }) => [key].concat(values.map(value)));
  const none = differences.length === 0 ? 'the configurations do not differ\n' : '';
  return `${tableOf([...metrics, ...keys], names)}${none}`;
}
