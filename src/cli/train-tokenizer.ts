import { mkdir, readFile, rmdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { errorFor } from '../errors.js';
import { native } from '../native/index.js';
import {
  holdsTokenizer,
  Lock,
  onDisk,
  openCorpus,
  saveTokenizer,
  StopSignals,
  trainTokenizer,
} from '../run/index.js';
import type { SetupEvent } from '../run/index.js';
import { addOptions, addOutputOptions, collect, tokenizerDataOptions, wholeNumber } from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import type { OutputOptions } from './output.js';

interface TokenizerFlags extends OutputOptions {
  dataset?: string;
  configName?: string;
  split?: string;
  textColumn?: string;
  textTemplate?: string;
  revision?: string;
  maxSamples?: number;
  batchSize?: number;
  vocabSize: number;
  pattern: string;
  specialToken?: string[];
  seed?: number;
  output?: string;
  python?: string;
  loadTimeout?: number;
  retryBudget?: number;
}

/** What a tokenizer was trained from: repeated with the same, the command has nothing left to do. */
interface Origin {
  dataset: string;
  config_name: string | null;
  split: string;
  text_column: string;
  text_template: string | null;
  revision: string | null;
  max_samples: number | null;
  vocab_size: number;
  pattern: string;
  special_tokens: string[];
}

const ORIGIN_FILE = 'tokenizer_training.json';

/** `candlewick train-tokenizer`, which is `train-tokenizer-streaming`. */
export function trainTokenizerCommand(name: string, program: string): Command {
  const command = new Command(name).description(
    'train a byte-level BPE tokenizer from a stream of documents',
  );
  addOptions(command, tokenizerDataOptions)
    .option('--vocab-size <n>', 'tokens of the vocabulary, special tokens included', wholeNumber, 32_000)
    .addOption(
      new Option('--pattern <name>', 'how text is cut into words')
        .choices(['gpt2', 'cl100k', 'o200k', 'llama3', 'qwen2'])
        .default('gpt2'),
    )
    .option('--special-token <text...>', 'special token; may be repeated (default: <|endoftext|>)', collect)
    .option('--seed <n>', 'accepted for symmetry: documents are counted in file order', wholeNumber)
    .option('--output <dir>', 'directory to write the tokenizer to');
  addOutputOptions(command).addHelpText(
    'after',
    `
Examples:
  $ ${program} --dataset sample --vocab-size 4096 --output artifacts/tokenizer/sample
  $ ${program} --dataset HuggingFaceFW/fineweb --max-samples 1000000 --vocab-size 50000 --output artifacts/tokenizer/fineweb`,
  );
  return command.action(async (flags: TokenizerFlags) => {
    process.exitCode = await run(flags, program);
  });
}

async function run(flags: TokenizerFlags, program: string): Promise<number> {
  ignoreClosedPipes(false);
  const { dataset, output: directory } = flags;
  if (dataset === undefined)
    throw errorFor('USAGE', '--dataset is missing', `for example ${program} --dataset sample --output DIR`);
  if (directory === undefined)
    throw errorFor(
      'USAGE',
      '--output is missing',
      'name a directory to write the tokenizer to: --output DIR',
    );
  if (flags.textTemplate !== undefined && flags.textColumn !== undefined)
    throw errorFor(
      'USAGE',
      '--text-column and --text-template exclude each other',
      'name the column in the template',
    );
  for (const [flag, value] of [
    ['--max-samples', flags.maxSamples],
    ['--batch-size', flags.batchSize],
  ] as const) {
    if (value === 0) throw errorFor('USAGE', `${flag} is 0`, 'it must be 1 or more');
  }
  const output = new Output(flags);
  using signals = new StopSignals((name) => output.people.warn(`${name}: stopping; nothing is written`));
  try {
    return await train(originOf(dataset, flags), directory, flags, output, signals);
  } catch (cause) {
    if (signals.exitCode === null) throw cause;
    output.event({ type: 'done', reason: 'stopped' });
    return signals.exitCode;
  } finally {
    output.people.close();
  }
}

async function train(
  origin: Origin,
  directory: string,
  flags: TokenizerFlags,
  output: Output,
  signals: StopSignals,
): Promise<number> {
  const parent = dirname(directory);
  const made = await onDisk(parent, () => mkdir(parent, { recursive: true }));
  const lock = await Lock.acquire(`${directory}.lock`, directory);
  try {
    if (await isThere(origin, directory)) {
      output.people.say(`${directory} holds this tokenizer already`);
      output.event({ type: 'done', reason: 'present', output: directory, vocab_size: origin.vocab_size });
      return 0;
    }
    const { people } = output;
    const tell = (event: SetupEvent) => {
      people.setup(event);
      output.event(event.type === 'tokenizer' ? { ...event, type: 'progress' } : event);
    };
    const binding = native();
    people.say(`opening ${origin.dataset}`);
    const corpus = openCorpus(
      {
        ...origin,
        batch_size: flags.batchSize ?? 1000,
        python: flags.python ?? null,
        load_timeout: flags.loadTimeout ?? 120,
        retry_budget: flags.retryBudget ?? 1800,
      },
      { signal: signals.signal, notice: (notice) => tell({ type: 'source', ...notice }) },
    );
    try {
      const { sources } = await corpus.open();
      const [ready] = sources.map((source) => source.ready);
      people.say(
        `training ${origin.vocab_size.toLocaleString('en-US')} tokens from ${ready?.files.length} files of split ${ready?.split}`,
      );
      const began = performance.now();
      let last = { documents: 0, bytes: 0 };
      const tokenizer = await trainTokenizer(binding, sources, {
        vocabSize: origin.vocab_size,
        pattern: origin.pattern,
        specialTokens: origin.special_tokens,
        maxSamples: origin.max_samples,
        batchSize: flags.batchSize ?? 1000,
        threads: availableParallelism(),
        heldOut: [],
        signal: signals.signal,
        onProgress: (event) => {
          last = event;
          tell(event);
        },
      });
      await saveTokenizer(tokenizer, directory, {
        [ORIGIN_FILE]: { ...origin, revision: ready?.revision ?? null },
      });
      const seconds = (performance.now() - began) / 1000;
      const { documents, bytes } = last;
      const result = {
        type: 'done',
        reason: 'trained',
        output: directory,
        vocab_size: tokenizer.vocabSize(),
        documents,
        bytes,
        seconds,
      };
      output.event({ ...result, digest: tokenizer.digest() });
      people.say(
        `${tokenizer.vocabSize().toLocaleString('en-US')} tokens from ${documents.toLocaleString('en-US')} documents in ${seconds.toFixed(1)} s`,
      );
      output.result(`${directory}\n`);
      people.say(`next:\n  npx candlewick tokenizer encode ${directory} "Once upon a time"`);
      people.say(
        `  npx train-streaming --dataset ${origin.dataset} --tokenizer ${directory} --config configs/quickstart.yaml --output runs/first`,
      );
      return 0;
    } finally {
      await corpus.close();
    }
  } finally {
    lock.release();
    if (made !== undefined) await removeEmpty(parent, dirname(made));
  }
}

/** Removes empty directories from `path` up to, and without, `end`. */
async function removeEmpty(path: string, end: string): Promise<void> {
  for (let at = resolve(path); at !== resolve(end); at = dirname(at)) {
    const removed = await rmdir(at).then(
      () => true,
      () => false,
    );
    if (!removed) return;
  }
}

function originOf(dataset: string, flags: TokenizerFlags): Origin {
  return {
    dataset,
    config_name: flags.configName ?? null,
    split: flags.split ?? 'train',
    text_column: flags.textColumn ?? 'text',
    text_template: flags.textTemplate ?? null,
    revision: flags.revision ?? null,
    max_samples: flags.maxSamples ?? null,
    vocab_size: flags.vocabSize,
    pattern: flags.pattern,
    special_tokens: flags.specialToken ?? ['<|endoftext|>'],
  };
}

/** Whether the directory holds the tokenizer that would be trained. Throws RESUME_MISMATCH when it holds another. */
async function isThere(origin: Origin, directory: string): Promise<boolean> {
  if (!(await holdsTokenizer(directory))) return false;
  const text = await readFile(join(directory, ORIGIN_FILE), 'utf8').catch(() => null);
  const hint = 'name another directory with --output, or delete this one';
  if (text === null)
    throw errorFor('RESUME_MISMATCH', `${directory} holds a tokenizer of unknown origin`, hint);
  const old = JSON.parse(text) as Origin;
  for (const key of Object.keys(origin) as (keyof Origin)[]) {
    // A revision that was not asked for is the one that was pinned.
    if (key === 'revision' && origin.revision === null) continue;
    const [before, now] = [JSON.stringify(old[key] ?? null), JSON.stringify(origin[key])];
    if (before !== now) {
      throw errorFor(
        'RESUME_MISMATCH',
        `${directory} holds another tokenizer: ${key} was ${before} and is ${now} now`,
        hint,
      );
    }
  }
  return true;
}
