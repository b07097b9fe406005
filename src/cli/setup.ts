/** `candlewick setup`: the Python environment, for those who installed the package from npm. */
import { Command } from 'commander';
import { StopSignals } from '../run/index.js';
import { setUpPython } from '../setup/index.js';
import { addOutputOptions } from './options.js';
import { Output } from './output.js';
import type { OutputOptions } from './output.js';

interface SetupFlags extends OutputOptions {
  venv: string;
}

/** The verb `setup`, to be added to the program. */
export function setupCommand(): Command {
  const command = new Command('setup')
    .description('make the Python environment that streams datasets, with the pinned requirements')
    .option('--venv <dir>', 'folder of the virtual environment', '.venv');
  return addOutputOptions(command).action(setUp);
}

async function setUp(flags: SetupFlags): Promise<void> {
  const output = new Output(flags);
  const started = performance.now();
  using signals = new StopSignals(() => undefined);
  const { python, made } = await setUpPython({
    dir: flags.venv,
    signal: signals.signal,
    say: (what) => output.people.say(`${what} …`),
  });
  const seconds = (performance.now() - started) / 1000;
  output.people.say(made ? `done in ${seconds.toFixed(1)} s` : 'in place already');
  output.event({ type: 'setup', python, made, seconds });
  output.result(`${python}\n`);
}
