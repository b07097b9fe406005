/** `candlewick estimate`: what a run will take, before it begins. */
import { Command } from 'commander';
import { loadConfig } from '../config/index.js';
import type { LoadedConfig } from '../config/index.js';
import { CandlewickError, errorFor } from '../errors.js';
import {
  ASSUMED_MFU,
  assumedGpuSpeed,
  devicePeaks,
  estimate,
  fitToMemory,
  measureSpeed,
  openIn,
} from '../estimate/index.js';
import type { EstimateOptions } from '../estimate/index.js';
import { native } from '../native/index.js';
import { StopSignals } from '../run/index.js';
import { estimateInWords } from './estimate-words.js';
import { addOptions, addOutputOptions, anyNumber, collect, overridesOf, trainOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** Exit code where the run does not fit: that of the error it would end with. */
const DOES_NOT_FIT = 5;
const DISK_DOES_NOT_FIT = 3;

interface EstimateFlags extends OutputOptions {
  set?: string[];
  pricePerHour?: number;
  tokensPerSecond?: number;
  assume?: string;
  mfu?: number;
  measure?: boolean;
}

/** The verb `estimate`, to be added to the program. */
export function estimateCommand(): Command {
  const command = new Command('estimate')
    .description('what a run will take: parameters, FLOPs, memory, disk, time and money')
    .argument('<config>', 'configuration in YAML');
  addOptions(command, trainOptions)
    .option('--set <key=value...>', 'set any key of the configuration; may be repeated', collect)
    .option('--measure', 'run three real steps here and count with their speed')
    .option('--tokens-per-second <n>', 'count with this speed', anyNumber)
    .option('--assume <gpu>', `count with a GPU's peak: ${Object.keys(devicePeaks).join(', ')}`)
    .option('--mfu <share>', `share of that peak (default: ${ASSUMED_MFU})`, anyNumber)
    .option('--price-per-hour <amount>', 'price of the machine', anyNumber);
  return addOutputOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  $ candlewick estimate configs/quickstart.yaml --measure
  $ candlewick estimate configs/runpod_1b.yaml --assume h100 --price-per-hour 2.39

Exit code 0 when the run fits, 5 when memory and 3 when the disk is too small for it.`,
    )
    .action(async (path: string, flags: EstimateFlags) => {
      process.exitCode = await run(path, flags);
    });
}

async function run(path: string, flags: EstimateFlags): Promise<number> {
  checkFlags(flags);
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const loaded = await loadConfig(
    path,
    overridesOf(flags as unknown as Record<string, unknown>, trainOptions, flags.set),
  );
  for (const warning of loaded.warnings) output.people.warn(warning);
  const binding = native();
  const tokenizerSize = await knownSize(loaded);
  const options: EstimateOptions = {
    ...(tokenizerSize === undefined ? {} : { tokenizerSize }),
    ...(flags.pricePerHour === undefined ? {} : { pricePerHour: flags.pricePerHour }),
  };
  if (flags.measure === true) {
    // What does not fit is not tried.
    const before = await estimate(binding, loaded, options);
    if (!before.problems.some((what) => what.endsWith('memory'))) {
      fitToMemory(binding, loaded.config, openIn(loaded), options);
      using signals = new StopSignals((name) => output.people.warn(`${name}: stopping`));
      try {
        const speed = await measureSpeed(binding, loaded.config, {
          ...(tokenizerSize === undefined ? {} : { tokenizerSize }),
          signal: signals.signal,
          onStep: (step, seconds) => output.people.say(`step ${step} of 3: ${seconds.toFixed(2)} s`),
        });
        options.speed = () => speed;
      } catch (cause) {
        if (signals.exitCode !== null && cause instanceof CandlewickError && cause.code === 'ABORTED') {
          return signals.exitCode;
        }
        throw cause;
      }
    }
  } else if (flags.tokensPerSecond !== undefined) {
    const tokensPerSecond = flags.tokensPerSecond;
    options.speed = () => ({ tokensPerSecond, source: 'given', basis: '--tokens-per-second' });
  } else if (flags.assume !== undefined) {
    const name = flags.assume;
    options.elsewhere = true;
    options.speed = ({ total }) => {
      const speed = assumedGpuSpeed(name, total, flags.mfu);
      if (speed === null) throw unknownGpu(name);
      return speed;
    };
  }
  const found = await estimate(binding, loaded, options);
  output.event({ type: 'estimate', ...found });
  output.result(`${estimateInWords(found, flags.pricePerHour !== undefined).join('\n')}\n`);
  if (found.problems.some((what) => what.endsWith('memory'))) return DOES_NOT_FIT;
  return found.problems.includes('disk') ? DISK_DOES_NOT_FIT : 0;
}

function unknownGpu(name: string): CandlewickError {
  return errorFor(
    'USAGE',
    `--assume: nothing is known of ${name}`,
    `one of ${Object.keys(devicePeaks).join(', ')}`,
  );
}

/** Before anything is loaded: what cannot be meant. */
function checkFlags({ measure, tokensPerSecond, assume, mfu, pricePerHour }: EstimateFlags): void {
  const speeds = [measure === true, tokensPerSecond !== undefined, assume !== undefined];
  if (speeds.filter(Boolean).length > 1) {
    throw errorFor(
      'USAGE',
      '--measure, --tokens-per-second and --assume each say how fast the run is',
      'keep one of them',
    );
  }
  if (assume !== undefined && devicePeaks[assume] === undefined) throw unknownGpu(assume);
  if (mfu !== undefined && assume === undefined) {
    throw errorFor('USAGE', '--mfu says nothing without --assume', 'name the GPU with --assume');
  }
  if (mfu !== undefined && !(mfu > 0 && mfu <= 1)) {
    throw errorFor('USAGE', `--mfu is ${mfu}`, 'give a share above 0 and at most 1, such as 0.4');
  }
  if (tokensPerSecond !== undefined && !(tokensPerSecond > 0)) {
    throw errorFor('USAGE', `--tokens-per-second is ${tokensPerSecond}`, 'give a number above 0');
  }
  if (pricePerHour !== undefined && pricePerHour < 0) {
    throw errorFor('USAGE', `--price-per-hour is ${pricePerHour}`, 'give 0 or more');
  }
}

/** Tokens of a tokenizer that is there; undefined where one is yet to be trained. */
async function knownSize({ config }: LoadedConfig): Promise<number | undefined> {
  const { path } = config.tokenizer;
  if (path === null) return undefined;
  try {
    return (await native().tokenizerFromPath(path)).vocabSize();
  } catch (cause) {
    // With the model's vocabulary named, the tokenizer may still be on its way.
    if (config.model.vocab_size !== null) return undefined;
    throw cause;
  }
}
