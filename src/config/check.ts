import type { z } from 'zod';
import { checkSources, missingDataset } from './sources.js';
import { keysAt, leafPaths, runSchema } from './schema.js';
import type { RunConfig } from './schema.js';
import { configurationError } from './source.js';
import { parseRange } from './steps.js';
import type { ConfigSource, Problem } from './source.js';
import { didYouMean } from './suggest.js';

/** Checks every key by itself, fills in the defaults, then checks keys against each other. Throws CONFIG_INVALID. */
export function check(source: ConfigSource): RunConfig {
  const result = runSchema.safeParse(source.values);
  if (!result.success)
    refuse(source, [
      ...result.error.issues.flatMap((issue) => describe(issue, source)),
      ...missingDataset(source.values['data']),
    ]);
  const config = result.data as RunConfig;
  preferFlags(config, source);
  const problems = [...checkSources(config, source), ...crossCheck(config)];
  if (problems.length > 0) refuse(source, problems);
  return config;
}

/** Throws the error that lists `problems`. */
export function refuse(source: ConfigSource, problems: readonly Problem[]): never {
  const hints = [...new Set(problems.flatMap(({ hint }) => (hint === undefined ? [] : [hint])))];
  throw configurationError(
    source.sorted(problems).map((problem) => source.line(problem)),
    hints.length > 0 ? hints.join('; ') : undefined,
  );
}

/** Where a flag and the file cannot both stand, the flag does. */
function preferFlags(config: RunConfig, source: ConfigSource): void {
  const { training } = config;
  const shrunk =
    source.isOverridden('training.global_batch_size') && !source.isOverridden('training.micro_batch_size');
  const { micro_batch_size: micro, global_batch_size: global } = training;
  if (shrunk && typeof micro === 'number' && micro > global) training.micro_batch_size = null;

  const { data } = config;
  if (source.isOverridden('data.text_template') && !source.isOverridden('data.text_column'))
    data.text_column = 'text';
  if (source.isOverridden('data.text_column') && !source.isOverridden('data.text_template'))
    data.text_template = null;

  const { tokenizer } = config;
  // Weights that exist were trained with a tokenizer that exists: there is none to train.
  if (config.init_from !== null) tokenizer.train = null;
  if (tokenizer.path === null || tokenizer.train === null) return;
  const named = source.isOverridden('tokenizer.path');
  const trained = Object.keys(tokenizer.train).some((key) => source.isOverridden(`tokenizer.train.${key}`));
  if (named) tokenizer.train = null;
  else if (trained) tokenizer.path = null;
}

function crossCheck(config: RunConfig): Problem[] {
  const { tokenizer, model, data, training, schedule, checkpoint, evaluation } = config;
  const problems: Problem[] = [];
  const wrong = (key: string, message: string, hint: string) => {
    problems.push({ path: key.split('.'), message, hint });
  };
  if (tokenizer.path === null && tokenizer.train === null && config.init_from === null) {
    wrong('tokenizer', 'no tokenizer is named', 'set tokenizer.path (--tokenizer DIR) or tokenizer.train');
  }
  if (tokenizer.path !== null && tokenizer.train !== null) {
    wrong('tokenizer', 'path and train exclude each other', 'keep one of tokenizer.path and tokenizer.train');
  }
  for (const range of data.skip_steps) {
    if (parseRange(range) === null)
      wrong(
        'data.skip_steps',
        `${JSON.stringify(range)} is no range of batches`,
        'give A:B with 1 <= A <= B',
      );
  }
  const heads = model.num_attention_heads;
  const keyValueHeads = model.num_key_value_heads ?? heads;
  if (heads % keyValueHeads !== 0) {
    wrong(
      'model.num_key_value_heads',
      `${keyValueHeads} does not divide num_attention_heads, which is ${heads}`,
      `set model.num_key_value_heads to one of ${divisors(heads).join(', ')}`,
    );
  }
  if (model.head_dim === null && model.hidden_size % heads !== 0) {
    wrong(
      'model.num_attention_heads',
      `${heads} does not divide hidden_size, which is ${model.hidden_size}`,
      'set model.head_dim, or a number of heads that divides model.hidden_size',
    );
  }
  const headDim = model.head_dim ?? model.hidden_size / heads;
  if (Number.isInteger(headDim) && headDim % 2 !== 0) {
    wrong(
      model.head_dim === null ? 'model.num_attention_heads' : 'model.head_dim',
      `heads are ${headDim} wide, and rotary embeddings need an even width`,
      `set model.head_dim to ${headDim + 1}`,
    );
  }
  const positions = model.max_position_embeddings;
  if (positions !== null && data.sequence_length > positions) {
    wrong(
      'data.sequence_length',
      `${data.sequence_length} is longer than model.max_position_embeddings, which is ${positions}`,
      `set data.sequence_length to ${positions} or less, or raise model.max_position_embeddings`,
    );
  }
  const { global_batch_size: global, micro_batch_size: micro } = training;
  if (typeof micro === 'number' && global % micro !== 0) {
    wrong(
      'training.micro_batch_size',
      `${micro} does not divide training.global_batch_size, which is ${global}`,
      `set training.micro_batch_size to one of ${divisors(global).slice(-8).join(', ')}`,
    );
  }
  const { every_steps: every, keep_every: keep } = checkpoint;
  if (keep !== null && (every === null || keep % every !== 0)) {
    wrong(
      'checkpoint.keep_every',
      `${keep} is no multiple of checkpoint.every_steps, which is ${every}: there are no such checkpoints`,
      every === null
        ? 'set checkpoint.every_steps'
        : `set checkpoint.keep_every to ${Math.ceil(keep / every) * every}`,
    );
  }
  const elsewhere = (['dataset', 'split', 'config_name', 'text_column', 'revision'] as const).find(
    (key) => evaluation[key] !== null,
  );
  if (elsewhere !== undefined && evaluation.documents === 0) {
    wrong(
      `evaluation.${elsewhere}`,
      'evaluation.documents is 0: nothing of it would be read',
      'set evaluation.documents to how many documents to evaluate on',
    );
  }
  if (elsewhere !== undefined && evaluation.dataset === null && evaluation.split === null) {
    wrong(
      `evaluation.${elsewhere}`,
      'it says how to read other data than the training data, and none is named',
      'set evaluation.dataset or evaluation.split',
    );
  }
  if (evaluation.split !== null && evaluation.dataset === null && data.sources !== null) {
    wrong(
      'evaluation.split',
      'the data are several sources, and it does not say of which',
      'set evaluation.dataset too',
    );
  }
  const limited = training.max_steps !== null || training.max_tokens !== null || data.max_samples !== null;
  if (!limited && (schedule.name === 'cosine' || schedule.name === 'linear')) {
    wrong(
      'schedule.name',
      `${schedule.name} needs an end, and the run has no limit`,
      'set training.max_steps, training.max_tokens or data.max_samples, or schedule.name constant or wsd',
    );
  }
  if (tokenizer.train !== null && !tokenizer.train.special_tokens.includes('<|endoftext|>')) {
    wrong(
      'tokenizer.train.special_tokens',
      'there is no <|endoftext|>, which closes each document',
      'add <|endoftext|> to tokenizer.train.special_tokens',
    );
  }
  return problems;
}

/** All divisors, smallest first. */
export function divisors(n: number): number[] {
  const found: number[] = [];
  for (let d = 1; d * d <= n; d++) if (n % d === 0) found.push(d, n / d);
  return [...new Set(found)].sort((a, b) => a - b);
}

/** One of zod's issues in our words. */
function describe(issue: z.core.$ZodIssue, source: ConfigSource): Problem[] {
  const { path } = issue;
  const value = path.reduce<unknown>(
    (node, key) => (typeof node === 'object' && node !== null ? Reflect.get(node, key) : undefined),
    source.values,
  );
  const got = spell(value);
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({ path: [...path, key], message: unknownKey(key, path), atKey: true }));
    case 'invalid_type': {
      const expected = typeNames[issue.expected] ?? `a ${issue.expected}`;
      return [
        { path, message: value === undefined ? 'the key is missing' : `expected ${expected}, got ${got}` },
      ];
    }
    case 'invalid_value': {
      const values = issue.values.map(String);
      if (value === undefined) return [{ path, message: `the key is missing; one of ${values.join(', ')}` }];
      const near = typeof value === 'string' ? didYouMean(value, values) : null;
      const suggestion = near === null ? '' : `; did you mean "${near}"?`;
      return [
        {
          path,
          message: `expected ${values.length > 1 ? 'one of ' : ''}${values.join(', ')}, got ${got}${suggestion}`,
        },
      ];
    }
    case 'too_small':
    case 'too_big': {
      const [limit, word] =
        issue.code === 'too_small'
          ? [issue.minimum, issue.inclusive === false ? 'more than' : 'at least']
          : [issue.maximum, issue.inclusive === false ? 'less than' : 'at most'];
      if (issue.origin === 'string') return [{ path, message: 'expected text, got an empty string' }];
      if (issue.origin === 'array') {
        return [
          { path, message: `expected ${issue.exact === true ? '' : `${word} `}${limit} values, got ${got}` },
        ];
      }
      return [{ path, message: `expected ${word} ${limit}, got ${got}` }];
    }
    case 'invalid_union':
      return [{ path, message: `${issue.message}, got ${got}` }];
    default:
      return [{ path, message: issue.message }];
  }
}

const typeNames: Record<string, string> = {
  int: 'a whole number',
  number: 'a number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of keys',
};

function unknownKey(key: string, path: readonly PropertyKey[]): string {
  const near = didYouMean(key, keysAt(path) ?? []);
  // A key of another section is as common a slip as a misspelt one.
  const suggestion = near ?? nearLeaf(key);
  return suggestion === null ? 'unknown key' : `unknown key; did you mean "${suggestion}"?`;
}

function nearLeaf(key: string): string | null {
  const leaves = new Map(leafPaths().map((leaf) => [leaf.split('.').at(-1) ?? '', leaf]));
  return leaves.get(didYouMean(key, leaves.keys()) ?? '') ?? null;
}

function spell(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = typeof value === 'bigint' ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}
