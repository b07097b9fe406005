import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CandlewickError } from '../src/errors.js';
import {
  configFromValues,
  configToYaml,
  leafPaths,
  loadConfig,
  parseConfig,
  parseSet,
  vocabSizeFor,
} from '../src/config/index.js';

const base = `tokenizer: {path: tok}
model: {architecture: qwen3, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
data: {dataset: sample, sequence_length: 32}
training: {max_steps: 10}
`;

function failure(action: () => unknown): CandlewickError {
  try {
    action();
  } catch (cause) {
    if (cause instanceof CandlewickError) return cause;
    throw cause;
  }
  throw new Error('nothing was thrown');
}

/** The error of a configuration that is `base` and more. */
const wrong = (more: string) => failure(() => parseConfig(base + more, 'run.yaml'));
const wrongSet = (...sets: string[]) => failure(() => parseConfig(base, 'run.yaml', sets.map(parseSet)));

describe('a configuration', () => {
  it('names file, line, column and the key that was meant for an unknown key', () => {
    const error = wrong('optimizer:\n  weight_decy: 0.1\n');
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.exitCode).toBe(2);
    expect(error.message).toBe(
      'run.yaml:6:3 optimizer.weight_decy: unknown key; did you mean "weight_decay"?',
    );
    expect(error.hint).not.toBe('');
  });

  it('names the right section for a key in the wrong one', () => {
    expect(wrong('max_tokens: 5\n').message).toBe(
      'run.yaml:5:1 max_tokens: unknown key; did you mean "training.max_tokens"?',
    );
    expect(wrong('optimizer: {warmpup: 3}\n').message).toContain('did you mean "schedule.warmup_steps"?');
  });

  it('lists every problem at once, in the order of the file', () => {
    const lines = wrong('optimizer:\n  lr: fast\n  betas: [0.9]\nschedule:\n  name: cosin\n').message.split(
      '\n',
    );
    expect(lines).toEqual([
      'run.yaml:6:3 optimizer.lr: expected a number, got "fast"',
      'run.yaml:7:3 optimizer.betas: expected 2 values, got [0.9]',
      'run.yaml:9:3 schedule.name: expected one of cosine, wsd, linear, constant, got "cosin"; did you mean "cosine"?',
    ]);
  });

  it('refuses values out of range', () => {
    expect(wrong('optimizer: {lr: 0}\n').message).toContain('optimizer.lr: expected more than 0, got 0');
    expect(wrong('logging: {every_steps: 1.5}\n').message).toContain('expected a whole number, got 1.5');
    expect(wrong('checkpoint: {keep_last: 0}\n').message).toContain('expected at least 1, got 0');
  });

  it('refuses a key that occurs twice, and YAML that is none', () => {
    expect(wrong('data: {dataset: other}\n').message).toBe('run.yaml:5:1 data: the key occurs twice');
    expect(wrong('optimizer: [1\n').message).toMatch(/^run\.yaml:\d+:\d+ /);
    expect(failure(() => parseConfig('- 1\n', 'run.yaml')).message).toContain('expected a map');
  });

  it('says which keys are missing', () => {
    const { message } = failure(() => parseConfig('data: {split: train}\n', 'run.yaml'));
    expect(message).toContain('model: the key is missing');
    expect(message).toContain('run.yaml:1:1 data.dataset: the key is missing');
  });

  it('reads 3e-4 as a number', () => {
    expect(parseConfig(`${base}optimizer: {lr: 3e-4}\n`, 'run.yaml').config.optimizer.lr).toBe(3e-4);
    expect(parseConfig(base, 'run.yaml', [parseSet('optimizer.lr=3e-4')]).config.optimizer.lr).toBe(3e-4);
  });

  it('takes an empty section for one with defaults', () => {
    expect(parseConfig(`${base}evaluation:\n`, 'run.yaml').config.evaluation.documents).toBe(0);
  });
});

describe('several sources', () => {
  const several = `${base.replace('dataset: sample, ', '')}`.replace(
    'data: {',
    'data: {sources: [{dataset: a/b, weight: 3}, {dataset: c/d, text_column: body, on_exhausted: drop}], ',
  );
  const wrongSources = (...sets: string[]) =>
    failure(() => parseConfig(several, 'run.yaml', sets.map(parseSet))).message;

  it('have their own keys, with defaults', () => {
    const { sources } = parseConfig(several, 'run.yaml').config.data;
    const rest = { config_name: null, split: 'train', text_template: null, revision: null };
    expect(sources).toEqual([
      { dataset: 'a/b', ...rest, text_column: 'text', weight: 3, on_exhausted: 'stop' },
      { dataset: 'c/d', ...rest, text_column: 'body', weight: 1, on_exhausted: 'drop' },
    ]);
  });

  it('are written and read again, without the keys of one source', () => {
    const { config } = parseConfig(several, 'run.yaml');
    const text = configToYaml(config);
    expect(parseConfig(text, 'config.yaml').config).toEqual(config);
    expect(text).toMatch(/^data:\n {2}sources:\n {4}- dataset: a\/b\n/m);
    const data = text.slice(0, text.indexOf('training:'));
    expect(data).not.toMatch(/^ {2}(dataset|split|revision):/m);
    expect(configToYaml(parseConfig(base, 'run.yaml').config)).not.toContain('sources');
  });

  it('can be changed one by one by --set', () => {
    const sets = ['data.sources.1.weight=0.5', 'data.sources.0.revision=v1'].map(parseSet);
    const { sources } = parseConfig(several, 'run.yaml', sets).config.data;
    expect(sources).toMatchObject([
      { weight: 3, revision: 'v1' },
      { weight: 0.5, revision: null },
    ]);
    expect(wrongSources('data.sources.1.wieght=2')).toBe(
      '--set data.sources.1.wieght: unknown key; did you mean "weight"?',
    );
  });

  it.each([
    ['data.sources.0.weight=0', 'data.sources.0.weight: expected more than 0, got 0'],
    ['data.sources.1.on_exhausted=loop', 'expected one of repeat, stop, drop, got "loop"'],
    ['data.sources=[]', 'data.sources: expected at least 1 values, got []'],
    ['data.sources=[{weight: 1}]', 'data.sources.0.dataset: the key is missing'],
    ['data.sources.1.text_template="{body"', 'data.sources.1.text_template: '],
  ])('%s is refused', (set, message) => {
    expect(wrongSources(set)).toContain(message);
  });

  it('refuse the keys and flags of one source beside them', () => {
    const beside = failure(() => parseConfig(several.replace('data: {', 'data: {split: test, '), 'run.yaml'));
    expect(beside.message).toBe('run.yaml:3:8 data.split: split and sources exclude each other');
    const flag = { key: 'data.dataset', value: 'e/f', flag: '--dataset' };
    const error = failure(() => parseConfig(several, 'run.yaml', [flag]));
    expect(error.message).toBe(
      '--dataset (data.dataset): the configuration has several sources (data.sources), and this cannot change one of them',
    );
    expect(error.hint).toContain('--set data.sources.0.dataset=');
  });

  it('give way to the dataset of a program, as its dataset does to several', () => {
    const one = { key: 'data.dataset', value: 'own', flag: 'corpus', instead: ['data.sources'] };
    expect(parseConfig(several, 'run.yaml', [one]).config.data).toMatchObject({
      dataset: 'own',
      sources: null,
    });
    const many = {
      key: 'data.sources',
      value: [{ dataset: 'own' }],
      flag: 'corpus',
      instead: ['data.dataset'],
    };
    const { dataset, sources } = parseConfig(base, 'run.yaml', [many]).config.data;
    expect([dataset, sources?.length]).toEqual([null, 1]);
  });
});

describe('keys are held against each other', () => {
  it.each([
    ['model.num_key_value_heads=3', 'does not divide num_attention_heads', '1, 2, 4'],
    ['model.num_attention_heads=5', 'does not divide hidden_size', 'model.head_dim'],
    ['model.head_dim=15', 'even width', '16'],
    ['model.max_position_embeddings=16', 'longer than model.max_position_embeddings', '16'],
    ['training.micro_batch_size=5', 'does not divide training.global_batch_size', '1, 2, 4, 8, 16'],
    ['training.max_steps=null', 'cosine needs an end', 'training.max_steps'],
    ['tokenizer.path=null', 'no tokenizer is named', '--tokenizer'],
  ])('%s is refused', (set, message, hint) => {
    const error = wrongSet(set);
    expect(error.code).toBe('CONFIG_INVALID');
    expect(error.message).toContain(message);
    expect(error.hint).toContain(hint);
  });

  it('a constant or wsd schedule needs no limit', () => {
    for (const name of ['constant', 'wsd']) {
      parseConfig(base, 'run.yaml', [parseSet('training.max_steps=null'), parseSet(`schedule.name=${name}`)]);
    }
  });

  it('a vocabulary must be the tokenizer’s, padded or not', () => {
    expect(vocabSizeFor(null, 50_000)).toBe(50_048);
    expect(vocabSizeFor(50_048, 50_000)).toBe(50_048);
    expect(vocabSizeFor(50_000, 50_000)).toBe(50_000);
    const error = failure(() => vocabSizeFor(32_000, 50_000));
    expect([error.code, error.exitCode]).toEqual(['TOKENIZER_MISMATCH', 2]);
    expect(error.hint).toContain('50048');
  });

  it('devices and precisions that are not there are refused', () => {
    expect(wrongSet('training.device=cuda').code).toBe('CUDA_UNAVAILABLE');
    expect(wrongSet('training.precision=bf16').code).toBe('CONFIG_INVALID');
  });
});

describe('flags', () => {
  it('override keys, and their errors name them', () => {
    const loaded = parseConfig(base, 'run.yaml', [
      { key: 'training.max_steps', value: 3, flag: '--max-steps' },
    ]);
    expect(loaded.config.training.max_steps).toBe(3);
    const error = failure(() =>
      parseConfig(base, 'run.yaml', [{ key: 'training.max_steps', value: 0, flag: '--max-steps' }]),
    );
    expect(error.message).toBe('--max-steps (training.max_steps): expected at least 1, got 0');
    expect(wrongSet('optimizer.lrr=1').message).toBe('--set optimizer.lrr: unknown key; did you mean "lr"?');
  });

  it('--set wants key=value, and a value in YAML', () => {
    expect(failure(() => parseSet('optimizer.lr')).message).toBe('--set optimizer.lr: expected key=value');
    expect(failure(() => parseSet('a.b=[1')).message).toContain('--set a.b=[1: the value is not YAML');
  });

  it('a tokenizer that a flag names replaces the one to be trained', () => {
    const training = base.replace('{path: tok}', '{train: {vocab_size: 300}}');
    const { config } = parseConfig(training, 'run.yaml', [
      { key: 'tokenizer.path', value: 'other', flag: '--tokenizer' },
    ]);
    expect(config.tokenizer).toEqual({ path: 'other', train: null });
  });
});

describe('init_from', () => {
  const own = base.replace('tokenizer: {path: tok}\n', '');
  it('brings its own tokenizer, whatever one would be trained, unless one is named', () => {
    const { config, decisions } = parseConfig(`${own}init_from: runs/before\n`, 'run.yaml');
    expect(config.tokenizer).toEqual({ path: null, train: null });
    expect(decisions.find(({ key }) => key === 'tokenizer')?.value).toContain('runs/before');
    const trained = `${own}tokenizer: {train: {vocab_size: 300}}\n`;
    const flag = [{ key: 'init_from', value: 'runs/before', flag: '--init-from' }];
    expect(parseConfig(trained, 'run.yaml', flag).config.tokenizer).toEqual({ path: null, train: null });
    expect(parseConfig(base, 'run.yaml', flag).config.tokenizer.path).toBe('tok');
  });

  it('is written into config.yaml', () => {
    const { config } = parseConfig(`${own}init_from: runs/before\n`, 'run.yaml');
    expect(parseConfig(configToYaml(config), 'config.yaml').config).toEqual(config);
  });
});

describe('what is resolved', () => {
  it('is written out whole, and reads back as itself', () => {
    const { config } = parseConfig(base, 'run.yaml');
    const text = configToYaml(config);
    expect(parseConfig(text, 'config.yaml').config).toEqual(config);
    for (const leaf of leafPaths()) {
      if (!leaf.startsWith('tokenizer.train') && leaf !== 'data.sources')
        expect(text).toContain(`${leaf.split('.').at(-1)}:`);
    }
    expect(text).not.toContain('auto\n  threads');
  });

  it('decides what was auto, with the reason', () => {
    const { config, decisions } = parseConfig(base, 'run.yaml');
    expect(config.training).toMatchObject({ device: 'cpu', precision: 'f32', micro_batch_size: 16 });
    expect(config.model).toMatchObject({ num_key_value_heads: 4, head_dim: 16, max_position_embeddings: 32 });
    expect(decisions.map(({ key }) => key)).toContain('training.device');
  });

  it('names the run after the file', () => {
    expect(parseConfig(base, 'configs/small.yaml').output).toBe('runs/small');
  });

  it('can be given as values', () => {
    const { config } = configFromValues({
      tokenizer: { path: 'tok' },
      model: {
        architecture: 'llama',
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: 2,
        num_attention_heads: 4,
      },
      data: { dataset: 'sample' },
      training: { max_steps: 1 },
    });
    expect(config.model.architecture).toBe('llama');
  });
});

/** Parameters of a model, counted from its shape as the Hugging Face classes have it. */
function parameters(
  file: Awaited<ReturnType<typeof loadConfig>>['config'],
  vocabulary: number,
): { body: number; total: number } {
  const {
    hidden_size: c,
    intermediate_size: i,
    num_hidden_layers: layers,
    head_dim: d,
    ...model
  } = file.model;
  const norms = 2 * c + (model.architecture === 'qwen3' ? 2 * d : 0);
  const attention = 2 * c * d * (model.num_attention_heads + model.num_key_value_heads);
  const body = layers * (attention + 3 * c * i + norms) + c;
  return { body, total: body + vocabulary * c * (model.tie_word_embeddings ? 1 : 2) };
}

describe('configs/', () => {
  it.each([
    ['quickstart', 4096, 0.7e6, 1e6, 1.3e6],
    ['gpt2_124m', 50_304, 84e6, 86e6, 124e6],
    ['runpod_1b', 50_048, 0.88e9, 0.92e9, 1.1e9],
  ])('%s.yaml has the size that it says', async (name, vocabulary, least, most, total) => {
    const { config } = await loadConfig(`configs/${name}.yaml`);
    expect(vocabSizeFor(config.model.vocab_size, config.tokenizer.train?.vocab_size ?? 0)).toBe(vocabulary);
    const count = parameters(config, vocabulary);
    expect(count.body).toBeGreaterThan(least);
    expect(count.body).toBeLessThanOrEqual(most);
    expect(Math.abs(count.total / total - 1)).toBeLessThan(0.02);
  });

  it('holds no file that is not tested here', () => {
    expect(readdirSync('configs').sort()).toEqual(['gpt2_124m.yaml', 'quickstart.yaml', 'runpod_1b.yaml']);
  });
});
