import { Command, InvalidArgumentError } from 'commander';
import { parseRange } from '../config/index.js';
import type { Range } from '../config/index.js';
import { defaultParts, duration, short, StopSignals, verifyRun } from '../run/index.js';
import type { Difference, Verdict, VerifyProgress } from '../run/index.js';
import { peekCommand } from './peek.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** Exit code of a replay that differs from the run: the data source is not what it was. */
const DIFFERENT = 4;

interface VerifyFlags extends OutputOptions {
  steps?: Range;
}

/** `candlewick data verify|peek`. */
export function dataCommand(): Command {
  const verify = new Command('verify')
    .description('replay the stream of a run without training, and compare it with what the run trained on')
    .argument('<run>', 'run directory; it may be running')
    .option('--steps <a:b>', 'steps to compare, both ends included (default: all that were logged)', range);
  addOutputOptions(verify)
    .addHelpText(
      'after',
      `
The replay begins at the nearest checkpoint before the first step, or at the beginning. It ends with exit code 0 when
the rolling hash agrees at every logged step and checkpoint, and with ${DIFFERENT} when it does not.

Examples:
  $ candlewick data verify runs/quickstart
  $ candlewick data verify runs/quickstart --steps 200:300`,
    )
    .action(async (run: string, flags: VerifyFlags) => {
      process.exitCode = await verifyData(run, flags);
    });
  return new Command('data')
    .description('look at the stream that a run is trained on')
    .addCommand(verify)
    .addCommand(peekCommand());
}

async function verifyData(run: string, flags: VerifyFlags): Promise<number> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const { people } = output;
  using signals = new StopSignals((name) => people.warn(`${name}: stopping`));
  try {
    const verdict = await verifyRun(run, defaultParts(), {
      steps: flags.steps ?? null,
      signal: signals.signal,
      say: (message) => people.say(message),
      warn: (message) => people.warn(message),
      onProgress: (event) => {
        people.status(progressLine(event));
        output.event(event);
      },
    });
    people.close();
    output.event(verdict);
    output.result(`${verdictInWords(verdict)}\n`);
    return verdict.match ? 0 : DIFFERENT;
  } catch (cause) {
    if (signals.exitCode === null) throw cause;
    people.say('stopped before the comparison was complete');
    return signals.exitCode;
  } finally {
    people.close();
  }
}

const count = (n: number) => n.toLocaleString('en-US');

function progressLine({ step, last, steps_per_second, bytes_per_second }: VerifyProgress): string {
  return [
    `step ${count(step)}/${count(last)}`,
    `${short(steps_per_second)} steps/s`,
    `${short(bytes_per_second)}B/s`,
    `ETA ${duration((last - step) / steps_per_second)}`,
  ].join('  ');
}

function verdictInWords({ match, from, to, compared, stream_hash, difference }: Verdict): string {
  if (match || difference === null) {
    const places = compared === 1 ? '1 place' : `${count(compared)} places`;
    return `steps ${count(from)}–${count(to)} match: ${places} compared, stream hash ${stream_hash ?? 'none'}`;
  }
  return differenceInWords(difference);
}

function differenceInWords({ after, step, where, run, replay }: Difference): string {
  const known = after === 0 ? 'nothing before it was compared' : `step ${count(after)} still matches`;
  const lies =
    step - after <= 1
      ? `the stream differs in step ${count(step)}`
      : `the stream differs between steps ${count(after + 1)} and ${count(step)}`;
  const said = `${where} says ${run.hash} after ${count(run.tokens)} tokens and ${count(run.documents)} documents`;
  const got =
    replay === null
      ? 'the replayed stream ends before'
      : `the replay has ${replay.hash} after ${count(replay.tokens)} tokens and ${count(replay.documents)} documents`;
  return `${lies} (${known}): at step ${count(step)} ${said}; ${got}`;
}

function range(text: string): Range {
  const parsed = parseRange(text);
  if (parsed === null) throw new InvalidArgumentError('It must be A:B with 1 <= A <= B.');
  return parsed;
}
