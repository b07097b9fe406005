/** `candlewick setup`: the Python environment, for those who installed the package from npm. */
import { Command } from 'commander';
import { cudaReport, gpusInWords } from '../cuda/index.js';
import type { CudaReport } from '../cuda/index.js';
import { CandlewickError } from '../errors.js';
import { StopSignals } from '../run/index.js';
import { setUpCuda, setUpPython } from '../setup/index.js';
import { addOutputOptions } from './options.js';
import { Output } from './output.js';
import type { OutputOptions } from './output.js';

interface SetupFlags extends OutputOptions {
  venv: string;
}

/** The verb `setup`, to be added to the program. */
export function setupCommand(): Command {
  const command = new Command('setup')
    .description('make the Python environment that streams datasets, and bring what a GPU lacks of CUDA')
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
  const report = lookAtCuda();
  const wheels = wheelsFor(report);
  if (report !== null && wheels.length > 0) {
    output.people.say(`pip install of ${wheels.join(' and ')}, for ${gpusInWords(report)} …`);
    await setUpCuda(python, wheels, signals.signal);
  }
  const seconds = (performance.now() - started) / 1000;
  output.people.say(made || wheels.length > 0 ? `done in ${seconds.toFixed(1)} s` : 'in place already');
  output.event({ type: 'setup', python, made, wheels, seconds });
  output.result(`${python}\n`);
}

/** Null where the binary does not load: `doctor` says why, and streaming needs the environment all the same. */
function lookAtCuda(): CudaReport | null {
  try {
    return cudaReport();
  } catch (error) {
    if (error instanceof CandlewickError) return null;
    throw error;
  }
}

/** What this machine's GPU needs of pip: nothing without one, and nothing for a binary that cannot use it. */
export function wheelsFor(report: CudaReport | null): readonly string[] {
  return report?.built === true && report.gpus.length > 0 ? report.wheels : [];
}
