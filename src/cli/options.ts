import { InvalidArgumentError, Option } from 'commander';
import type { Command } from 'commander';
import { parseSet } from '../config/index.js';
import type { Override } from '../config/index.js';

/** A whole number; `1_000_000` is one. */
export function wholeNumber(text: string): number {
  const digits = text.replaceAll('_', '');
  if (!/^\d+$/.test(digits) || !Number.isSafeInteger(Number(digits))) {
    throw new InvalidArgumentError('It must be a whole number.');
  }
  return Number(digits);
}

/** Bytes: `500MB`, `2GB`, `1.5GiB`, or a number of them. */
export function byteCount(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?$/i.exec(text.replaceAll('_', ''));
  const power = ['k', 'm', 'g', 't'].indexOf(parts?.[2]?.toLowerCase() ?? '') + 1;
  const bytes = Math.round(Number(parts?.[1]) * (parts?.[3] ? 1024 : 1000) ** power);
  if (!Number.isSafeInteger(bytes)) throw new InvalidArgumentError('It must be bytes, as 500MB or 2GB.');
  return bytes;
}

/** A number. */
export function anyNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number.');
  return value;
}

/** A device by its name. */
export function deviceName(text: string): string {
  if (/^(cpu|auto|cuda(:\d+)?)$/.test(text)) return text;
  throw new InvalidArgumentError('Allowed choices are cpu, cuda, auto, and cuda:N.');
}

/** An option, and the configuration's keys that it sets. */
interface KeyedOption {
  flags: string;
  description: string;
  keys: readonly string[];
  parse?: (text: string) => unknown;
  choices?: readonly string[];
  /** It may be given several times. */
  repeats?: boolean;
  /** Keys that follow from it, and are decided anew unless they are set too. */
  reopens?: readonly string[];
}

const dataset: readonly KeyedOption[] = [
  {
    flags: '--dataset <name>',
    description: 'name on the Hugging Face Hub, a local path, or sample',
    keys: ['data.dataset'],
  },
  {
    flags: '--config-name <name>',
    description: 'configuration (subset) of the dataset',
    keys: ['data.config_name'],
  },
  { flags: '--split <name>', description: 'split to read (default: train)', keys: ['data.split'] },
  {
    flags: '--text-column <name>',
    description: 'column that holds the text (default: text)',
    keys: ['data.text_column'],
  },
  {
    flags: '--text-template <text>',
    description: "columns joined to a text, as '{title}: {text}'; instead of --text-column",
    keys: ['data.text_template'],
  },
  {
    flags: '--revision <name>',
    description: 'branch, tag or commit; the newest is pinned otherwise',
    keys: ['data.revision'],
  },
  {
    flags: '--max-samples <n>',
    description: 'documents to use at most',
    keys: ['data.max_samples'],
    parse: wholeNumber,
  },
  {
    flags: '--batch-size <n>',
    description: 'documents to fetch at a time; changes speed, never what is learned (default: 1000)',
    keys: ['data.batch_size'],
    parse: wholeNumber,
  },
];

const environment: readonly KeyedOption[] = [
  { flags: '--python <file>', description: 'Python that streams the data', keys: ['data.python'] },
  {
    flags: '--load-timeout <seconds>',
    description: 'how long opening the dataset may take (default: 120)',
    keys: ['data.load_timeout'],
    parse: anyNumber,
  },
  {
    flags: '--retry-budget <seconds>',
    description: 'how long to wait for a source that fails before giving up (default: 1800)',
    keys: ['data.retry_budget'],
    parse: anyNumber,
  },
];

/** Options of `train`; each has its keys. */
export const trainOptions: readonly KeyedOption[] = [
  ...dataset,
  { flags: '--epochs <n>', description: 'passes over the data', keys: ['data.epochs'], parse: wholeNumber },
  {
    flags: '--tokenizer <dir>',
    description: 'tokenizer to use instead of training one',
    keys: ['tokenizer.path'],
  },
  {
    flags: '--init-from <dir>',
    description:
      'start from the weights, and the tokenizer, of a run, a checkpoint or a model that transformers saved',
    keys: ['init_from'],
  },
  {
    flags: '--output <dir>',
    description: 'run directory (default: runs/<name of the configuration>)',
    keys: ['output'],
  },
  {
    flags: '--max-steps <n>',
    description: 'optimizer steps in all',
    keys: ['training.max_steps'],
    parse: wholeNumber,
  },
  {
    flags: '--max-minutes <n>',
    description: 'save and stop after so many minutes; the same command goes on',
    keys: ['training.max_minutes'],
    parse: anyNumber,
  },
  {
    flags: '--skip-steps <a:b>',
    description: 'leave out batches A to B, as after a loss spike; may be repeated',
    keys: ['data.skip_steps'],
    repeats: true,
  },
  {
    flags: '--seed <n>',
    description: 'seed of the order and of the weights',
    keys: ['data.seed', 'training.seed'],
    parse: wholeNumber,
  },
  {
    flags: '--device <name>',
    description: 'where to train: cpu, cuda, auto, or cuda:N for the GPU of that number',
    keys: ['training.device'],
    parse: deviceName,
    // A run's own config.yaml has that of the device that it began on.
    reopens: ['training.precision'],
  },
  {
    flags: '--resume <how>',
    description: 'auto, never, or a checkpoint or run directory to go on from (default: auto)',
    keys: ['checkpoint.resume'],
  },
  ...environment,
];

/** Options of `train-tokenizer` that name its data. */
export const tokenizerDataOptions: readonly KeyedOption[] = [...dataset, ...environment];

/** Adds options to a command. */
export function addOptions(command: Command, options: readonly KeyedOption[]): Command {
  for (const { flags, description, parse, choices, repeats } of options) {
    const option = new Option(flags, description);
    if (choices !== undefined) option.choices([...choices]);
    if (parse !== undefined) option.argParser(parse);
    if (repeats === true) option.argParser(collect);
    command.addOption(option);
  }
  return command;
}

/** Options that every command has. */
export function addOutputOptions(command: Command): Command {
  return command
    .option('--json', 'print one JSON object a line on stdout, and nothing else there')
    .option('--quiet', 'print no progress');
}

/** What the flags that were given set, for the configuration; `--set` first, so that a flag of its own wins. */
export function overridesOf(
  values: Record<string, unknown>,
  options: readonly KeyedOption[],
  sets: readonly string[] = [],
): Override[] {
  const overrides = sets.map(parseSet);
  for (const { flags, keys, reopens = [] } of options) {
    const flag = flags.split(' ')[0] ?? flags;
    const value = values[new Option(flags).attributeName()];
    if (value === undefined) continue;
    const open = reopens.filter((key) => overrides.every((set) => set.key !== key));
    overrides.push(...keys.map((key) => ({ key, value, flag })));
    overrides.push(...open.map((key) => ({ key, value: 'auto', flag })));
  }
  return overrides;
}

/** Collects an option that may be repeated. */
export function collect(value: string, before: string[] | undefined): string[] {
  return [...(before ?? []), value];
}
