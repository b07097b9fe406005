import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { errorFor } from '../src/errors.js';
import type { ProgramName } from '../src/cli/index.js';
import { FakeNative } from './support/fake-native.js';

const fake = vi.hoisted(() => ({ native: null as FakeNative | null, openError: null as Error | null }));
vi.mock('../src/native/index.js', () => ({ native: () => fake.native?.binding }));
vi.mock('../src/corpus/index.js', async (original) => ({
  ...(await original<Record<string, unknown>>()),
  HuggingFaceStreamingCorpus: function (dataset: string) {
    if (fake.openError !== null) throw fake.openError;
    return fake.native?.corpus({ dataset });
  },
}));
const { main } = await import('../src/cli/index.js');

// A program ends its process some seconds after its command; here that is vitest's own, which a slow machine reaches.
process.exit = (() => undefined) as unknown as typeof process.exit;

let root: string;
let config: string;
beforeEach(async () => {
  fake.native = new FakeNative();
  fake.openError = null;
  root = await mkdtemp(join(tmpdir(), 'candlewick-cli-'));
  config = join(root, 'small.yaml');
  await writeFile(
    config,
    `tokenizer: {train: {vocab_size: 300}}
model: {architecture: qwen3, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
data: {dataset: sample, sequence_length: 32}
training: {max_steps: 4, global_batch_size: 2}
`,
  );
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(root, { recursive: true });
});

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

async function run(name: ProgramName, ...argv: string[]): Promise<Outcome> {
  const outcome = { code: 0, stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      outcome[stream] += String(text);
      return true;
    });
  }
  process.exitCode = 0;
  try {
    await main(name, argv);
    outcome.code = Number(process.exitCode ?? 0);
  } finally {
    process.exitCode = 0;
    vi.restoreAllMocks();
    for (const stream of [process.stdout, process.stderr]) stream.removeAllListeners('error');
  }
  return outcome;
}

const train = (...argv: string[]) =>
  run('train-streaming', '--config', config, '--output', join(root, 'run'), ...argv);
const json = ({ stdout }: Outcome) =>
  stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { type: string });

describe('usage errors exit with 2 and say what would be right', () => {
  it.each<[ProgramName, string[], RegExp, RegExp]>([
    ['train-streaming', ['--max-step', '3'], /unknown option '--max-step'/, /did you mean --max-steps/],
    [
      'train-streaming',
      ['--max-steps', 'three'],
      /'--max-steps <n>' argument 'three' is invalid.*whole number/,
      /train-streaming --help/,
    ],
    ['train-streaming', ['--device', 'gpu'], /Allowed choices are cpu, cuda, auto/, /--help/],
    ['train-streaming', [], /--config is missing/, /quickstart/],
    ['train-streaming', ['extra'], /too many arguments/, /--help/],
    ['train-tokenizer-streaming', ['--output', 'x'], /--dataset is missing/, /sample/],
    ['train-tokenizer-streaming', ['--dataset', 'sample'], /--output is missing/, /--output DIR/],
    ['train-tokenizer-streaming', ['--pattern', 'gpt3'], /Allowed choices are gpt2/, /--help/],
    [
      'candlewick',
      [],
      /a verb is missing/,
      /train, train-tokenizer, estimate, generate, export, runs, tokenizer, data, dash, setup, doctor/,
    ],
    ['candlewick', ['trian'], /unknown command 'trian'/, /did you mean train/],
    [
      'candlewick',
      ['generate', 'dir'],
      /required option '--prompt <text>' not specified/,
      /candlewick generate --help/,
    ],
    [
      'candlewick',
      ['export', 'dir'],
      /required option '--to <dir>' not specified/,
      /candlewick export --help/,
    ],
    [
      'candlewick',
      ['export', 'dir', '--to', 'x', '--dtype', 'int8'],
      /Allowed choices are f32, bf16, f16/,
      /--help/,
    ],
    ['candlewick', ['dash', '--port', 'x'], /must be a whole number/, /candlewick dash --help/],
  ])('%s %j', async (name, argv, message, hint) => {
    const { code, stdout, stderr } = await run(name, ...argv);
    const [first, second] = stderr.split('\n');
    expect(first).toMatch(/^error\[USAGE\]: /);
    expect(first).toMatch(message);
    expect(second).toMatch(/^hint: /);
    expect(second).toMatch(hint);
    expect([code, stdout]).toEqual([2, '']);
  });
});

describe('errors', () => {
  it('of the configuration name its place, on stderr and as JSON', async () => {
    await writeFile(config, `${await readFile(config, 'utf8')}optimizer:\n  warmpup: 3\n`);
    const outcome = await train('--json');
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain(
      `error[CONFIG_INVALID]: ${config}:6:3 optimizer.warmpup: unknown key; did you mean`,
    );
    expect(json(outcome)).toEqual([
      {
        type: 'error',
        code: 'CONFIG_INVALID',
        message: expect.any(String) as string,
        hint: expect.any(String) as string,
      },
    ]);
  });

  it('of the source keep their code', async () => {
    fake.openError = errorFor('DATASET_NOT_FOUND', 'there is no such dataset', 'check its name');
    expect(await train()).toMatchObject({
      code: 4,
      stderr: expect.stringContaining(
        'error[DATASET_NOT_FOUND]: there is no such dataset\nhint: check its name\n',
      ) as string,
    });
  });

  it('that nobody foresaw exit with 1 and ask for a report', async () => {
    fake.openError = new TypeError('oh');
    const { code, stderr } = await train();
    expect(code).toBe(1);
    expect(stderr).toMatch(/error\[INTERNAL\]: TypeError: oh\n\s+at /);
    expect(stderr).toMatch(/hint: .*please report/);
  });
});

describe('help', () => {
  it.each<[ProgramName, string[]]>([
    ['train-streaming', []],
    ['train-tokenizer-streaming', []],
    ['candlewick', ['train']],
    ['candlewick', ['train-tokenizer']],
    ['candlewick', ['generate']],
    ['candlewick', ['export']],
    ['candlewick', ['dash']],
  ])('of %s %j has examples', async (name, verb) => {
    const { code, stdout } = await run(name, ...verb, '--help');
    expect(code).toBe(0);
    expect(stdout).toMatch(/Examples:\n {2}\$ /);
    for (const option of ['--json', '--quiet', '--help']) expect(stdout).toContain(option);
  });

  it('lists the verbs that there are and no others', async () => {
    const { stdout } = await run('candlewick', '--help');
    const verbs = [...stdout.matchAll(/^ {2}([a-z][\w-]*)/gm)].map(([, verb]) => verb);
    expect(verbs).toEqual([
      'train',
      'train-tokenizer',
      'estimate',
      'generate',
      'export',
      'runs',
      'tokenizer',
      'data',
      'dash',
      'setup',
      'doctor',
    ]);
  });

  it('tells the version', async () => {
    const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string };
    expect(await run('candlewick', '--version')).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});

describe('train-streaming', () => {
  it('--print-config prints a configuration that repeats the run', async () => {
    const { stdout } = await train(
      '--print-config',
      '--max-steps',
      '7',
      '--seed',
      '5',
      '--set',
      'optimizer.lr=3e-4',
    );
    const printed = join(root, 'printed.yaml');
    await writeFile(printed, stdout);
    const again = await run('train-streaming', '--config', printed, '--print-config');
    expect(again.stdout).toBe(stdout);
    expect(stdout).toMatch(/max_steps: 7/);
    expect(stdout.match(/seed: 5/g)).toHaveLength(2);
  });

  it('trains, tells what it decided, and says what to try next', async () => {
    const { code, stdout, stderr } = await train();
    expect(code).toBe(0);
    for (const word of ['model', 'tokenizer', 'until      4 steps', 'starts     from new weights']) {
      expect(stderr).toContain(word);
    }
    // Which of the two depends on the build.
    expect(stderr).toMatch(
      /device {5}cpu \((this build of candlewick has no CUDA|no NVIDIA driver: libcuda\.so\.1 was not found)/,
    );
    expect(stderr).toContain('stream hash 0000000000000004');
    expect(stderr).toMatch(/next:\n {2}npx candlewick generate .*run/);
    expect(stdout).toBe('The upon a time\n');
  });

  it('goes on when the same command is given again, and with the directory alone', async () => {
    await train();
    expect((await train('--max-steps', '6')).stderr).toContain('starts     after step 4');
    const alone = await run('candlewick', 'train', '--output', join(root, 'run'), '--json');
    expect(json(alone).at(-1)).toMatchObject({ type: 'done', step: 6 });
  });

  it('--json prints an object a line and nothing else', async () => {
    const types = json(await train('--json')).map(({ type }) => type);
    expect(new Set(types)).toEqual(
      new Set(['phase', 'progress', 'start', 'step', 'checkpoint', 'done', 'sample']),
    );
    expect(types.filter((type) => type === 'step')).toHaveLength(4);
  });

  it('--quiet prints nothing', async () => {
    expect(await train('--quiet')).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  it('--set takes one or many', async () => {
    const { stdout } = await train(
      '--print-config',
      '--set',
      'optimizer.lr=1e-4',
      'optimizer.eps=1e-6',
      '--set',
      'data.seed=9',
    );
    for (const line of ['lr: 0.0001', 'eps: 0.000001', 'seed: 9']) expect(stdout).toContain(line);
  });

  it('--dry-run touches nothing', async () => {
    const { code, stderr } = await train('--dry-run');
    expect(code).toBe(0);
    expect(stderr).toContain('until      4 steps');
    expect(fake.native?.feeds).toEqual([]);
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s saves the last completed step and exits with %i', async (signal, code) => {
    const native = fake.native as FakeNative;
    native.beforeStep = (step) => {
      if (step === 3) process.emit(signal, signal);
    };
    const outcome = await train('--json');
    expect(outcome.code).toBe(code);
    expect(json(outcome).at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 2 });
    expect(outcome.stderr).toContain('the same command goes on from');
    native.beforeStep = () => undefined;
    expect((await train()).stderr).toContain('starts     after step 2');
  });

  it('a file called STOP saves and exits with 0', async () => {
    const native = fake.native as FakeNative;
    native.beforeStep = async (step) => {
      if (step !== 3) return;
      const stopped = new Promise<void>((resolve) => {
        native.onStop = resolve;
      });
      await writeFile(join(root, 'run', 'STOP'), '');
      await stopped;
    };
    const outcome = await train();
    expect(outcome.code).toBe(0);
    expect(outcome.stderr).toMatch(/found .*STOP: saving[^]*the same command goes on from .*00000002/);
  });

  it('a signal before the first step exits with its code and leaves nothing half done', async () => {
    const native = fake.native as FakeNative;
    native.onConsume = () => void process.emit('SIGTERM', 'SIGTERM');
    const outcome = await train();
    expect(outcome.code).toBe(143);
    expect(outcome.stderr).not.toContain('error[');
  });
});

describe('train-tokenizer-streaming', () => {
  const command = (...argv: string[]) =>
    run(
      'train-tokenizer-streaming',
      '--dataset',
      'sample',
      '--vocab-size',
      '300',
      '--output',
      join(root, 'tok'),
      ...argv,
    );

  it('writes a tokenizer, and has nothing to do the second time', async () => {
    expect(await command()).toMatchObject({ code: 0, stdout: `${join(root, 'tok')}\n` });
    expect(JSON.parse(await readFile(join(root, 'tok', 'tokenizer.json'), 'utf8'))).toEqual({ size: 300 });
    const again = await command('--json');
    expect(json(again)).toEqual([expect.objectContaining({ type: 'done', reason: 'present' })]);
  });

  it('does not write over another tokenizer', async () => {
    await command();
    const outcome = await command('--max-samples', '5');
    expect(outcome.code).toBe(2);
    expect(outcome.stderr).toContain('error[RESUME_MISMATCH]');
    expect(outcome.stderr).toContain('max_samples was null and is 5 now');
  });

  it('stopped by a signal writes nothing', async () => {
    (fake.native as FakeNative).onConsume = () => void process.emit('SIGINT', 'SIGINT');
    expect((await command()).code).toBe(130);
    await expect(readFile(join(root, 'tok', 'tokenizer.json'))).rejects.toThrow();
  });
});

describe('generate and tokenizer', () => {
  it('continues a text from the newest checkpoint of a run', async () => {
    await train();
    const { code, stdout } = await run('candlewick', 'generate', join(root, 'run'), '--prompt', 'Once');
    expect([code, stdout]).toEqual([0, 'Once upon a time\n']);
    const events = json(await run('candlewick', 'generate', join(root, 'run'), '--prompt', 'Once', '--json'));
    expect(events.at(-1)).toMatchObject({
      type: 'done',
      text: ' upon a time',
      model: join(root, 'run', 'checkpoints', 'step-00000004'),
    });
  });

  it('says so when there is no model', async () => {
    expect(await run('candlewick', 'generate', root, '--prompt', 'x')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('holds no model') as string,
    });
  });

  it('refuses ids that the tokenizer does not have', async () => {
    await train();
    const outcome = await run(
      'candlewick',
      'tokenizer',
      'decode',
      join(root, 'run', 'tokenizer'),
      '5',
      '300',
    );
    expect(outcome).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('300 is not the id of a token') as string,
    });
  });
});
