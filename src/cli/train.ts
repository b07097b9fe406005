import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { configToYaml, loadConfig } from '../config/index.js';
import type { LoadedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import { estimate, fitToMemory, openIn } from '../estimate/index.js';
import { native } from '../native/index.js';
import { limitsInWords, StopSignals, Trainer } from '../run/index.js';
import type { DoneEvent, RunPlan, SetupEvent, TrainerEvent } from '../run/index.js';
import { headInWords } from './estimate-words.js';
import { addOptions, addOutputOptions, collect, overridesOf, trainOptions } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';
import { mixInWords, planInWords } from './plan.js';

interface TrainFlags extends OutputOptions {
  config?: string;
  output?: string;
  set?: string[];
  printConfig?: boolean;
  dryRun?: boolean;
  resetStream?: boolean;
}

type Sample = TrainerEvent & { type: 'sample' };

/** `candlewick train`, which is `train-streaming`. */
export function trainCommand(name: string, program: string): Command {
  const command = new Command(name).description(
    'train a model from a stream of documents; the same command again goes on where it stopped',
  );
  addOptions(command.option('--config <file>', 'configuration in YAML'), trainOptions)
    .option('--set <key=value...>', 'set any key of the configuration; may be repeated', collect)
    .option(
      '--reset-stream',
      'go on with the weights, and start the data over on purpose: they may be others; for this time only',
    )
    .option('--print-config', 'print the configuration with everything decided, and stop')
    .option('--dry-run', 'check the configuration, print what would be done, and stop');
  addOutputOptions(command).addHelpText(
    'after',
    `
Examples:
  $ ${program} --config configs/quickstart.yaml
  $ ${program} --dataset HuggingFaceFW/fineweb --max-samples 100000 --config configs/gpt2_124m.yaml
  $ ${program} --config configs/quickstart.yaml --max-steps 50 --set optimizer.lr=1e-3 --output runs/try

Ctrl+C saves and stops (exit code 130); a second one stops at once. So do SIGTERM (143) and SIGHUP (129), and, with
exit code 0, --max-minutes and a file called STOP in the run directory.`,
  );
  return command.action(async (flags: TrainFlags) => {
    process.exitCode = await train(flags);
  });
}

async function train(flags: TrainFlags): Promise<number> {
  ignoreClosedPipes(false);
  const output = new Output(flags);
  const loaded = await loadConfig(
    configFile(flags),
    overridesOf(flags as unknown as Record<string, unknown>, trainOptions, flags.set),
  );
  if (flags.printConfig === true) {
    process.stdout.write(output.json ? `${JSON.stringify(loaded.config)}\n` : configToYaml(loaded.config));
    return 0;
  }
  // Before anything is printed, so that whoever read something can stop the run.
  using signals = new StopSignals((name) => {
    output.people.warn(`${name}: saving the last completed step; once more stops at once`);
  });
  for (const warning of loaded.warnings) output.people.warn(warning);
  if (flags.dryRun === true) return dryRun(loaded, output);
  try {
    await runTrainer(loaded, flags, output, signals);
    return signals.exitCode ?? 0;
  } catch (cause) {
    // A stop before the first step leaves nothing to save; the signal's exit code says that it was one.
    if (!isAborted(cause)) throw cause;
    output.people.say('stopped before the first step; the same command begins again');
    output.event({ type: 'done', reason: 'stopped', step: 0 });
    return signals.exitCode ?? 0;
  } finally {
    output.people.close();
  }
}

async function runTrainer(
  loaded: LoadedConfig,
  flags: TrainFlags,
  output: Output,
  signals: StopSignals,
): Promise<void> {
  const trainer = await Trainer.create({
    config: loaded,
    resetStream: flags.resetStream === true,
    signal: signals.signal,
    onSetup: (event) => {
      if (!isOwnSignal(event)) output.people.setup(event);
      output.event(event.type === 'tokenizer' ? { ...event, type: 'progress' } : event);
    },
  });
  let done: DoneEvent | null = null;
  const samples: Sample[] = [];
  try {
    const { plan } = trainer;
    const foretold = await estimate(native(), plan, { tokenizerSize: plan.tokenizer.size });
    for (const line of [...planInWords(plan, loaded), ...headInWords(foretold)]) {
      output.people.say(line);
      trainer.log(line);
    }
    output.event({ ...startEvent(plan, loaded), estimate: foretold });
    const every = plan.config.logging.every_steps;
    for await (const event of trainer.run()) {
      if (event.type === 'sample') samples.push(event);
      // The one at the end, that nobody asked for, is the result.
      const isResult = event.type === 'sample' && plan.config.evaluation.prompts.length === 0;
      if (!isOwnSignal(event) && !isResult) output.people.training(event, plan.config);
      if (event.type !== 'step' || event.step % every === 0) output.event(event);
      if (event.type === 'done') done = event;
    }
    output.people.close();
  } finally {
    await trainer.close();
  }
  if (done === null)
    throw errorFor('INTERNAL', 'the run ended without a word', 'report this with the command');
  conclude(done, samples, trainer.plan, output);
}

/** The command has said so already. */
function isOwnSignal(event: SetupEvent | TrainerEvent): boolean {
  return event.type === 'stopping' && event.cause === 'signal';
}

/** What is said after the last step: a text that the model continues, what to try next. */
function conclude(done: DoneEvent, samples: readonly Sample[], plan: RunPlan, output: Output): void {
  const { people } = output;
  if (done.mix !== undefined) people.say(mixInWords(done.mix, plan));
  if (done.reason === 'stopped') {
    people.say(
      done.checkpoint === null ? 'nothing was saved' : `the same command goes on from ${done.checkpoint}`,
    );
    return;
  }
  const sample = samples.find(({ step }) => step === done.step);
  if (sample !== undefined && plan.config.evaluation.prompts.length === 0) {
    people.say('the model continues a text:');
    if (!output.quiet) output.result(`${sample.prompt}${sample.text}\n`);
  }
  const prompt = sample?.prompt || plan.config.evaluation.prompt || 'The';
  people.say('next:');
  people.say(`  npx candlewick generate ${plan.output} --prompt ${JSON.stringify(prompt)}`);
  const { max_steps: steps } = plan.config.training;
  if (steps !== null && done.reason === 'limit') {
    people.say(
      `  npx train-streaming --config ${join(plan.output, 'config.yaml')} --max-steps ${2 * steps}    # goes on`,
    );
  }
}

function startEvent(plan: RunPlan, loaded: LoadedConfig): object {
  const { config, output, sources, tokenizer, parameters, tokensPerStep, heldOut, resumedFrom } = plan;
  return {
    type: 'start',
    output,
    ...dataOf(sources),
    vocab_size: tokenizer.size,
    parameters,
    tokens_per_step: tokensPerStep,
    limits: limitsInWords(config),
    device: config.training.device,
    precision: config.training.precision,
    threads: config.training.threads,
    held_out: heldOut,
    evaluated_on: plan.evaluatedOn,
    resumed_from: resumedFrom,
    decisions: loaded.decisions,
  };
}

function dataOf(sources: RunPlan['sources']): object {
  const [only, ...others] = sources.map(({ ready: { dataset, revision, files }, weight, on_exhausted }) => ({
    source: { dataset, revision, files: files.length },
    share: { weight, on_exhausted },
  }));
  if (others.length === 0) return only?.source ?? {};
  return { sources: [only, ...others].map((one) => Object.assign({}, one?.source, one?.share)) };
}

/** Checks without touching data or disk: the tokenizer's size is taken as configured. */
async function dryRun(
  { config, given, decisions, output: directory }: LoadedConfig,
  output: Output,
): Promise<number> {
  const foretold =
    config.model.vocab_size === null && config.tokenizer.train === null
      ? null
      : await estimate(native(), { config, given, output: directory });
  if (foretold !== null) {
    const tokenizerSize = config.tokenizer.train?.vocab_size;
    const known = tokenizerSize === undefined ? {} : { tokenizerSize };
    decisions.push(...fitToMemory(native(), config, openIn({ given }), known));
  }
  const { people } = output;
  const tokensPerStep = config.training.global_batch_size * config.data.sequence_length;
  if (foretold !== null) people.say(`parameters ${foretold.parameters.total.toLocaleString('en-US')}`);
  people.say(`step       ${tokensPerStep.toLocaleString('en-US')} tokens`);
  people.say(`until      ${limitsInWords(config)}`);
  people.say(`writes to  ${directory}`);
  if (foretold !== null) for (const line of headInWords(foretold)) people.say(line);
  for (const { key, value, reason } of decisions) people.say(`${key}: ${value} (${reason})`);
  output.event({
    type: 'plan',
    output: directory,
    parameters: foretold?.parameters ?? null,
    tokens_per_step: tokensPerStep,
    estimate: foretold,
    limits: limitsInWords(config),
    decisions,
  });
  return 0;
}

/** The named configuration, or that of the run that is to go on. */
function configFile(flags: TrainFlags): string {
  if (flags.config !== undefined) return flags.config;
  const own = flags.output === undefined ? null : join(flags.output, 'config.yaml');
  if (own !== null && existsSync(own)) return own;
  throw errorFor('USAGE', '--config is missing', 'name a configuration: --config configs/quickstart.yaml');
}

function isAborted(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === 'ABORTED';
}
