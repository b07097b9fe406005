import { mkdir, readFile, rmdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { Command, Option } from 'commander';
import { errorFor } from '../errors.js';
import type { NativeTokenizer } from '../native/binding.js';
import { native } from '../native/index.js';
import {
  holdsTokenizer,
  Lock,
  onDisk,
  openCorpus,
  saveTokenizer,
  sha256File,
  StopSignals,
  trainTokenizer,
} from '../run/index.js';
import type { SetupEvent, SourceReady, TrainableCorpus } from '../run/index.js';
import {
  anyNumber,
  addOptions,
  addOutputOptions,
  byteCount,
  collect,
  tokenizerDataOptions,
  wholeNumber,
} from './options.js';
import { ignoreClosedPipes, Output } from './output.js';
import { PartialTraining } from './partial-training.js';
import type { OutputOptions } from './output.js';
import { tellQuality } from './training-quality.js';

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
  minFrequency?: number;
  maxTokenLength?: number;
  seedTokenizer?: string;
  counts?: string;
  saveCounts?: string | true;
  memoryLimit?: number;
  checkpointEvery?: number;
  seed?: number;
  output?: string;
  python?: string;
  loadTimeout?: number;
  retryBudget?: number;
}

/** What a tokenizer was trained from: repeated with the same, the command has nothing left to do. */
export interface Origin {
  /** Null: from counts alone. */
  dataset: string | null;
  config_name: string | null;
  split: string;
  text_column: string;
  text_template: string | null;
  revision: string | null;
  max_samples: number | null;
  vocab_size: number;
  pattern: string;
  special_tokens: string[];
  min_frequency: number | null;
  max_token_length: number | null;
  /** SHA-256 of the file of counts. */
  counts: string | null;
  /** Digest of the tokenizer that was gone on from. */
  seed_tokenizer: string | null;
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
    .option('--min-frequency <n>', 'least number of occurrences that makes a pair a token', wholeNumber)
    .option('--max-token-length <n>', 'tokens stay shorter than this, in bytes', wholeNumber)
    .option('--seed-tokenizer <dir>', 'go on from this tokenizer: its tokens keep their ids')
    .option('--counts <file>', 'begin with saved counts; without --dataset, train from them alone')
    .option('--save-counts [file]', 'keep the counts of all words (default: counts.bin in the output)')
    .option(
      '--memory-limit <bytes>',
      'what training holds at most, as 500MB; counts past it go to disk (default: 2GB)',
      byteCount,
    )
    .option(
      '--checkpoint-every <seconds>',
      'how often counts are put on disk, to go on from after a kill (default: 30)',
      anyNumber,
    )
    .option('--seed <n>', 'accepted for symmetry: documents are counted in file order', wholeNumber)
    .option('--output <dir>', 'directory to write the tokenizer to');
  addOutputOptions(command).addHelpText(
    'after',
    `
Examples:
  $ ${program} --dataset sample --vocab-size 4096 --output artifacts/tokenizer/sample
  $ ${program} --dataset HuggingFaceFW/fineweb --max-samples 1000000 --vocab-size 50000 --output artifacts/tokenizer/fineweb
  $ ${program} --counts counts.bin --vocab-size 8192 --output artifacts/tokenizer/small

Stopped in any way, it goes on from what it has counted when the command is repeated.`,
  );
  return command.action(async (flags: TokenizerFlags) => {
    process.exitCode = await run(flags, program);
  });
}

async function run(flags: TokenizerFlags, program: string): Promise<number> {
  ignoreClosedPipes(false);
  const { dataset, counts, output: directory } = flags;
  if (dataset === undefined && counts === undefined)
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
    ['--max-token-length', flags.maxTokenLength],
  ] as const) {
    if (value === 0) throw errorFor('USAGE', `${flag} is 0`, 'it must be 1 or more');
  }
  const output = new Output(flags);
  using signals = new StopSignals((name) =>
    output.people.warn(`${name}: stopping; the same command goes on from the counts on disk`),
  );
  try {
    return await train(directory, flags, output, signals);
  } catch (cause) {
    if (signals.exitCode === null) throw cause;
    output.event({ type: 'done', reason: 'stopped' });
    return signals.exitCode;
  } finally {
    output.people.close();
  }
}

async function train(
  directory: string,
  flags: TokenizerFlags,
  output: Output,
  signals: StopSignals,
): Promise<number> {
  const parent = dirname(directory);
  const made = await onDisk(parent, () => mkdir(parent, { recursive: true }));
  const lock = await Lock.acquire(`${directory}.lock`, directory);
  try {
    const { people } = output;
    const binding = native();
    const seed =
      flags.seedTokenizer === undefined ? null : await binding.tokenizerFromPath(flags.seedTokenizer);
    const origin = await originOf(flags, seed);
    const partial = new PartialTraining(directory);
    if (await isThere(origin, directory)) {
      await partial.remove();
      people.say(`${directory} holds this tokenizer already`);
      output.event({ type: 'done', reason: 'present', output: directory, vocab_size: origin.vocab_size });
      return 0;
    }
    const tell = (event: SetupEvent) => {
      people.setup(event);
      output.event(event.type === 'tokenizer' ? { ...event, type: 'progress' } : event);
    };
    const corpus = await open(origin, flags, partial, tell, signals);
    try {
      const sources = corpus === null ? [] : (await corpus.open()).sources;
      const [ready] = sources.map((source) => source.ready);
      await partial.claim(origin, sources);
      people.say(
        `training ${origin.vocab_size.toLocaleString('en-US')} tokens from ${
          ready === undefined ? flags.counts : `${ready.files.length} files of split ${ready.split}`
        }`,
      );
      const began = performance.now();
      let last = { documents: 0, bytes: 0 };
      const inside = flags.saveCounts === true ? partial.countsFile : null;
      const tokenizer = await trainTokenizer(binding, sources, {
        vocabSize: origin.vocab_size,
        pattern: origin.pattern,
        specialTokens: origin.special_tokens,
        maxSamples: origin.max_samples,
        batchSize: flags.batchSize ?? 1000,
        threads: availableParallelism(),
        heldOut: [],
        limits: {
          minFrequency: flags.minFrequency,
          maxTokenLength: flags.maxTokenLength,
          memoryLimit: flags.memoryLimit,
          commitEvery: flags.checkpointEvery,
        },
        seed,
        counts: flags.counts,
        saveCounts: typeof flags.saveCounts === 'string' ? flags.saveCounts : inside,
        keepIn: partial.directory,
        signal: signals.signal,
        onResume: (documents) =>
          people.say(
            `going on after ${documents.toLocaleString('en-US')} documents that were counted before`,
          ),
        onProgress: (event) => {
          last = event;
          tell(event);
        },
      });
      await saveTokenizer(
        tokenizer,
        directory,
        {
          [ORIGIN_FILE]: { ...origin, revision: ready?.revision ?? null },
          ...(ready === undefined ? {} : { 'tokenizer_manifest.json': { corpus: corpusFacts(ready) } }),
        },
        inside === null ? {} : { 'counts.bin': inside },
      );
      await partial.remove();
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
      people.say(
        `${tokenizer.vocabSize().toLocaleString('en-US')} tokens from ${documents.toLocaleString('en-US')} documents in ${seconds.toFixed(1)} s`,
      );
      await tellQuality(tokenizer, sources, output, signals.signal);
      output.event({ ...result, digest: tokenizer.digest() });
      output.result(`${directory}\n`);
      people.say(`next:\n  npx candlewick tokenizer encode ${directory} "Once upon a time"`);
      if (origin.dataset !== null)
        people.say(
          `  npx train-streaming --dataset ${origin.dataset} --tokenizer ${directory} --config configs/quickstart.yaml --output runs/first`,
        );
      return 0;
    } finally {
      await corpus?.close();
      await partial.removeUncounted();
    }
  } finally {
    lock.release();
    if (made !== undefined) await removeEmpty(parent, dirname(made));
  }
}

/** The corpus to read, at the revision that an earlier attempt pinned; null where there are only counts. */
async function open(
  origin: Origin,
  flags: TokenizerFlags,
  partial: PartialTraining,
  tell: (event: SetupEvent) => void,
  signals: StopSignals,
): Promise<TrainableCorpus | null> {
  const { dataset } = origin;
  if (dataset === null) return null;
  tell({ type: 'phase', phase: 'data', message: `opening ${dataset}` });
  return openCorpus(
    {
      ...origin,
      dataset,
      revision: origin.revision ?? (await partial.revision()),
      batch_size: flags.batchSize ?? 1000,
      python: flags.python ?? null,
      load_timeout: flags.loadTimeout ?? 120,
      retry_budget: flags.retryBudget ?? 1800,
    },
    { signal: signals.signal, notice: (notice) => tell({ type: 'source', ...notice }) },
  );
}

/** What the documents were, in file order from the beginning; how many stands beside it in the manifest. */
function corpusFacts({
  dataset,
  config_name,
  split,
  revision,
  text_column,
  text_template,
  files,
}: SourceReady) {
  return { dataset, config_name, split, revision, text_column, text_template, files: files.length };
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

async function originOf(flags: TokenizerFlags, seed: NativeTokenizer | null): Promise<Origin> {
  return {
    dataset: flags.dataset ?? null,
    config_name: flags.configName ?? null,
    split: flags.split ?? 'train',
    text_column: flags.textColumn ?? 'text',
    text_template: flags.textTemplate ?? null,
    revision: flags.revision ?? null,
    max_samples: flags.maxSamples ?? null,
    vocab_size: flags.vocabSize,
    pattern: flags.pattern,
    special_tokens: flags.specialToken ?? ['<|endoftext|>'],
    min_frequency: flags.minFrequency ?? null,
    max_token_length: flags.maxTokenLength ?? null,
    counts: flags.counts === undefined ? null : await digestOf(flags.counts),
    seed_tokenizer: seed?.digest() ?? null,
  };
}

async function digestOf(counts: string): Promise<string> {
  try {
    return await sha256File(counts);
  } catch (cause) {
    throw errorFor('USAGE', `--counts: cannot read ${counts}`, 'name a file that --save-counts wrote', cause);
  }
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
