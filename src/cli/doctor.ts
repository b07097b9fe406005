/** `candlewick doctor`: what this machine has of what a run needs. */
import { Command } from 'commander';
import { diagnose } from '../doctor/index.js';
import type { Check } from '../doctor/index.js';
import { addOutputOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

/** A check failed (exit code of the environment's errors). */
const FAILED = 3;

interface DoctorFlags extends OutputOptions {
  output?: string;
  python?: string;
}

/** The verb `doctor`, to be added to the program. */
export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('check this machine: Node, the binding, processor, memory, GPU, Python, the hub, the disk')
    .option('--output <dir>', 'directory that runs will be written to', 'runs')
    .option('--python <file>', 'Python that streams the data');
  return addOutputOptions(command)
    .addHelpText(
      'after',
      '\nExit code 0 when a run can begin, 3 when something fails; each failure has its cure.',
    )
    .action(async (flags: DoctorFlags) => {
      process.exitCode = await doctor(flags);
    });
}

async function doctor(flags: DoctorFlags): Promise<number> {
  ignoreClosedPipes(true);
  const output = new Output(flags);
  const checks: Check[] = [];
  const { python, output: directory } = flags;
  for await (const check of diagnose({
    ...(directory === undefined ? {} : { output: directory }),
    ...(python === undefined ? {} : { python }),
  })) {
    checks.push(check);
    output.event({ type: 'check', ...check });
    if (!output.quiet || check.status !== 'ok') output.result(inWords(check));
  }
  const count = (status: Check['status']) => checks.filter((check) => check.status === status).length;
  const [failed, warned] = [count('fail'), count('warn')];
  output.event({ type: 'done', ok: failed === 0, failed, warned });
  if (!output.quiet) {
    output.people.say(
      failed === 0
        ? `a run can begin${warned === 0 ? '' : `; ${warned} ${warned === 1 ? 'warning' : 'warnings'}`}`
        : `${failed} of ${checks.length} checks failed`,
    );
  }
  return failed === 0 ? 0 : FAILED;
}

function inWords({ name, status, detail, cure }: Check): string {
  const mark = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' }[status];
  const line = `${mark}  ${name.padEnd(10)}  ${detail}\n`;
  return cure === null ? line : `${line}                  cure: ${cure}\n`;
}
