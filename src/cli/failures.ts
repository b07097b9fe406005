/** What a command that failed says. Loads next to nothing: `--help` and mistakes are answered at once. */
import type { CommanderError } from 'commander';
import { CandlewickError, errorFor } from '../errors.js';

/** Prints what a command failed with; returns its exit code. */
export function report(cause: unknown, json: boolean): number {
  const error = cause instanceof CandlewickError ? cause : internalError(cause);
  const { code, message, hint } = error;
  if (json) process.stdout.write(`${JSON.stringify({ type: 'error', code, message, hint })}\n`);
  process.stderr.write(`error[${code}]: ${message}\nhint: ${hint}\n`);
  return error.exitCode;
}

/** What commander could not parse, as one of our errors. */
export function usageError(cause: CommanderError, program: string): CandlewickError {
  const [message = '', ...rest] = cause.message.replace(/^error: /, '').split('\n');
  const suggestion = /\((Did you mean .*)\)/i.exec(rest.join(' '))?.[1];
  const help = `${program} --help lists what there is`;
  if (cause.code === 'commander.help') return errorFor('USAGE', 'a verb is missing', help);
  const hint = suggestion === undefined ? help : `${suggestion.replace(/^D/, 'd')} ${help}`;
  return errorFor('USAGE', message, hint);
}

function internalError(cause: unknown): CandlewickError {
  const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  return errorFor(
    'INTERNAL',
    text,
    `this is a bug of candlewick: please report it with these lines, the command, and node ${process.version} on ${process.platform} ${process.arch}`,
    cause,
  );
}
