import { spawn } from 'node:child_process';
import { Command } from 'commander';
import { Dash } from '../dash/index.js';
import { StopSignals } from '../run/index.js';
import { addOutputOptions, wholeNumber } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

interface DashFlags extends OutputOptions {
  port?: number;
  open: boolean;
}

/** `candlewick dash`. */
export function dashCommand(): Command {
  const command = new Command('dash')
    .description('show the curves of runs, live, on a page of this machine')
    .argument('[runs...]', 'run directories, or directories of such', ['runs'])
    .option('--port <n>', 'port on 127.0.0.1 (default: 6007, or the next that is free)', wholeNumber)
    .option('--no-open', 'do not open a browser');
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
The page answers to this machine only and asks nobody else for anything. To see the runs of another machine:
  $ ssh -t -L 6007:127.0.0.1:6007 HOST candlewick dash --port 6007 --no-open PATH/TO/runs

Examples:
  $ candlewick dash runs/quickstart
  $ candlewick dash runs/a runs/b      # one over the other
  $ candlewick dash                    # all in runs/

Ctrl+C ends it.`,
    )
    .action(async (runs: string[], flags: DashFlags) => {
      process.exitCode = await dash(runs, flags);
    });
}

async function dash(runs: readonly string[], flags: DashFlags): Promise<number> {
  ignoreClosedPipes(false);
  const output = new Output(flags);
  using signals = new StopSignals(() => undefined);
  const server = await Dash.open(runs, { port: flags.port ?? null });
  try {
    output.event({ type: 'listening', url: server.url, runs: server.runs });
    output.result(`${server.url}\n`);
    output.people.say(`${server.runs === 1 ? '1 run' : `${server.runs} runs`}; Ctrl+C ends the page`);
    if (flags.open && !output.json && process.stdout.isTTY === true) openBrowser(server.url);
    await new Promise((resolve) => {
      if (signals.signal.aborted) resolve(null);
      signals.signal.addEventListener('abort', resolve, { once: true });
    });
  } finally {
    await server.close();
  }
  // To be ended is what the command is for.
  return 0;
}

/** Opens the page where there is a screen to open it on; that it cannot is no error. */
function openBrowser(url: string): void {
  const { platform, env } = process;
  if (platform === 'linux' && (env['DISPLAY'] ?? env['WAYLAND_DISPLAY'] ?? '') === '') return;
  const [command, ...args] =
    platform === 'darwin' ? ['open'] : platform === 'win32' ? ['cmd', '/c', 'start', ''] : ['xdg-open'];
  if (command === undefined) return;
  const child = spawn(command, [...args, url], { stdio: 'ignore', detached: true });
  child.on('error', () => undefined);
  child.unref();
}
