/** Every error code that is promised: a mistake that a user makes, and what comes of it. */
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ProcessStreamingCorpus } from '../src/corpus/index.js';
import {
  AbortedError,
  type CandlewickError,
  ConfigurationError,
  DivergedError,
  EnvironmentError,
  type ErrorCode,
  errorFor,
  OutOfMemoryError,
  SourceError,
} from '../src/errors.js';
import { Trainer } from '../src/run/index.js';
import { LocalHub } from './support/hub.js';
import { copyWithoutBinary } from './support/package-copy.js';
import { isBuilt, killAll, startIn } from './support/program.js';
import { python, repository, writeParquet } from './support/python.js';

/** How a code comes about: by a command, or by a call where no command leads there. */
interface Case {
  class: typeof CandlewickError;
  exit: number;
  /** Of the message and of the hint. */
  says: RegExp;
  hint: RegExp;
  /** Arguments of `train-streaming`, after those of a run that would work. */
  argv?: () => string[] | Promise<string[]>;
  /** Another command line than that of a run. */
  command?: () => [bin: string, ...argv: string[]] | Promise<[bin: string, ...argv: string[]]>;
  env?: () => Record<string, string> | Promise<Record<string, string>>;
  /** Where the programs are, if not in this repository. */
  from?: () => Promise<string>;
  call?: () => Promise<unknown>;
}

let root: string;
let hub: LocalHub;
const at = (...path: string[]) => join(root, ...path);
const write = async (path: string, text: string | Uint8Array) => {
  await mkdir(at(path, '..'), { recursive: true });
  await writeFile(at(path), text);
  return at(path);
};

/** A Python that answers who it is, and does something else than streaming. */
async function pretender(name: string, body: string): Promise<Record<string, string>> {
  const file = await write(
    `${name}/python`,
    `#!/bin/sh\ncase "$*" in *version_info*) exec '${python}' "$@";; esac\n${body}\n`,
  );
  await chmod(file, 0o755);
  return { CANDLEWICK_PYTHON: file };
}

const cases: Partial<Record<ErrorCode, Case>> = {
  USAGE: {
    class: ConfigurationError,
    exit: 2,
    says: /unknown option '--max-step'/,
    hint: /did you mean --max-steps/,
    argv: () => ['--max-step', '3'],
  },
  CONFIG_INVALID: {
    class: ConfigurationError,
    exit: 2,
    says: /optimizer\.warmpup: unknown key; did you mean "schedule\.warmup_steps"/,
    hint: /--print-config/,
    argv: () => ['--set', 'optimizer.warmpup=3'],
  },
  OUTPUT_IN_USE: {
    class: ConfigurationError,
    exit: 2,
    says: /is in use by process \d+/,
    hint: /--output/,
    argv: async () => {
      const { hostname } = await import('node:os');
      await write('held/run.lock', JSON.stringify({ pid: process.pid, host: hostname(), started: null }));
      return ['--output', at('held')];
    },
  },
  RESUME_MISMATCH: {
    class: ConfigurationError,
    exit: 2,
    says: /holds metrics\.jsonl and no config\.yaml/,
    hint: /another directory with --output/,
    argv: async () => {
      await write('other/metrics.jsonl', '');
      return ['--output', at('other')];
    },
  },
  TOKENIZER_INVALID: {
    class: ConfigurationError,
    exit: 2,
    says: /not a tokenizer\.json of Hugging Face's format/,
    hint: /train-tokenizer-streaming/,
    argv: async () => {
      await write('damaged/tokenizer.json', '{"model": {"type": "BPE"');
      return ['--tokenizer', at('damaged')];
    },
  },
  TOKENIZER_MISMATCH: {
    class: ConfigurationError,
    exit: 2,
    says: /model\.vocab_size is 7, and the tokenizer has 300 tokens/,
    hint: /leave model\.vocab_size out/,
    argv: () => ['--tokenizer', at('tokenizer'), '--set', 'model.vocab_size=7'],
  },
  VOCAB_TOO_LARGE: {
    class: ConfigurationError,
    exit: 2,
    says: /the text gives \d+ tokens, not 50000/,
    hint: /set --vocab-size to \d+ or less/,
    argv: () => ['--set', 'tokenizer.train.vocab_size=50000'],
  },
  CHECKPOINT_CORRUPT: {
    class: EnvironmentError,
    exit: 3,
    says: /manifest\.json is missing/,
    hint: /another checkpoint/,
    argv: async () => {
      await write('cut/checkpoints/step-00000002/model.safetensors', 'half');
      return ['--resume', at('cut', 'checkpoints', 'step-00000002')];
    },
  },
  DISK_FULL: {
    class: EnvironmentError,
    exit: 3,
    says: /the checkpoints of this run need .* are free/,
    hint: /checkpoint\.keep_last/,
    argv: () => [
      '--set',
      'checkpoint.keep_last=1000000000',
      '--set',
      'checkpoint.every_steps=1',
      '--max-steps',
      '2000000000',
    ],
  },
  NOT_WRITABLE: {
    class: EnvironmentError,
    exit: 3,
    says: /a file is in the way/,
    hint: /--output/,
    argv: async () => ['--output', join(await write('a-file', ''), 'run')],
  },
  PYTHON_NOT_FOUND: {
    class: EnvironmentError,
    exit: 3,
    says: /CANDLEWICK_PYTHON names \/nowhere\/python/,
    hint: /3\.10 or newer/,
    env: () => ({ CANDLEWICK_PYTHON: '/nowhere/python' }),
  },
  PYTHON_PACKAGE_MISSING: {
    class: EnvironmentError,
    exit: 3,
    says: /the Python package google_crc32c is not installed/,
    hint: /candlewick setup/,
    env: () => pretender('bare', `exec '${python}' -S "$@"`),
  },
  NATIVE_NOT_FOUND: {
    class: EnvironmentError,
    exit: 3,
    says: /no native binary for/,
    hint: /npm run build|reinstall/,
    from: () => copyWithoutBinary(at('package')),
  },
  CUDA_UNAVAILABLE: {
    class: EnvironmentError,
    exit: 3,
    // A build without CUDA says so; one with it looks for the driver.
    says: /this build of candlewick has no CUDA|no NVIDIA driver: libcuda\.so\.1 was not found/,
    hint: /--device cpu/,
    argv: () => ['--device', 'cuda'],
  },
  STREAMER_CRASHED: {
    class: SourceError,
    exit: 4,
    says: /the streamer exited with code 3; it wrote:\n {2}no luck/,
    hint: /candlewick setup/,
    env: () => pretender('crashing', 'echo no luck >&2; exit 3'),
  },
  STREAMER_TIMEOUT: {
    class: SourceError,
    exit: 4,
    says: /was not open after 0\.5 s/,
    hint: /--load-timeout/,
    argv: () => ['--load-timeout', '0.5'],
    env: () => pretender('silent', 'exec cat >/dev/null'),
  },
  DATASET_NOT_FOUND: {
    class: SourceError,
    exit: 4,
    says: /owner\/absent/,
    hint: /name|token|HF_TOKEN/,
    argv: () => ['--dataset', 'owner/absent'],
  },
  SPLIT_NOT_FOUND: {
    class: SourceError,
    exit: 4,
    says: /has no split 'trian'; it has: train/,
    hint: /--split/,
    argv: () => ['--split', 'trian'],
  },
  COLUMN_NOT_FOUND: {
    class: SourceError,
    exit: 4,
    says: /has no column 'content'; it has: text/,
    hint: /--text-column/,
    argv: () => ['--text-column', 'content'],
  },
  DATASET_EMPTY: {
    class: SourceError,
    exit: 4,
    says: /no document with text/,
    hint: /--split and --text-column/,
    argv: async () => ['--dataset', await write('empty/none.jsonl', '{"text": null}\n{"text": ""}\n')],
  },
  AUTH_REQUIRED: {
    class: SourceError,
    exit: 4,
    says: /owner\/gated/,
    hint: /HF_TOKEN/,
    argv: () => ['--dataset', 'owner/gated'],
    env: () => ({ HF_TOKEN: '' }),
  },
  SOURCE_UNAVAILABLE: {
    class: SourceError,
    exit: 4,
    says: /503.*given up/,
    hint: /--retry-budget/,
    argv: () => ['--dataset', 'owner/down', '--retry-budget', '0.2'],
  },
  SOURCE_CORRUPT: {
    class: SourceError,
    exit: 4,
    says: /damaged\.jsonl\.gz cannot be read: Compressed file ended/,
    hint: /damaged or not what its name says/,
    argv: async () => {
      const whole = gzipSync(`{"text": "${'some words. '.repeat(500)}"}\n`.repeat(40));
      return ['--dataset', await write('damage/damaged.jsonl.gz', whole.subarray(0, whole.length / 2))];
    },
  },
  PROTOCOL_VIOLATION: {
    class: SourceError,
    exit: 4,
    says: /line 1/,
    hint: /./,
    call: async () => {
      await using corpus = new ProcessStreamingCorpus(['sh', '-c', 'echo "{\\"text\\": 1}"']);
      for await (const _ of corpus.stream()) break;
    },
  },
  OUT_OF_MEMORY_HOST: {
    class: OutOfMemoryError,
    exit: 5,
    says: /needs .* GB of memory, and .* are free: .*activations of a micro-batch/,
    hint: /set training\.micro_batch_size: \d+ \(now 4194304; saves/,
    argv: () => ['--set', 'training.global_batch_size=4194304'],
  },
  DIVERGED: {
    class: DivergedError,
    exit: 6,
    says: /the (?:loss|gradient) of step \d was not a finite number 5 times in a row/,
    hint: /optimizer\.lr/,
    argv: () => ['--set', 'optimizer.lr=1e30', '--set', 'optimizer.clip_grad_norm=null'],
  },
  ABORTED: {
    class: AbortedError,
    exit: 130,
    says: /stopped/,
    hint: /same command/,
    call: async () =>
      Trainer.create({ config: at('tiny.yaml'), output: at('aborted'), signal: AbortSignal.abort() }),
  },
};

/** Codes that nobody can meet yet. */
const unreachable: Partial<Record<ErrorCode, string>> = {
  CUDA_DRIVER_TOO_OLD: 'this build has no CUDA, and asks no driver',
  OUT_OF_MEMORY_DEVICE: 'only a GPU has that: cuda/emulated-gpu.test.ts',
};

const needsHub = new Set<ErrorCode>(['DATASET_NOT_FOUND', 'AUTH_REQUIRED', 'SOURCE_UNAVAILABLE']);

describe('every error code', () => {
  it('is in the table, or said to be out of reach; and the README says what helps', async () => {
    const source = await readFile(join(repository, 'src', 'errors.ts'), 'utf8');
    const codes = [...source.matchAll(/^ {2}([A-Z_]+): \d+,$/gm)].map(([, code = '']) => code);
    expect(codes.length).toBeGreaterThan(25);
    const promised = codes.filter((code) => code !== 'INTERNAL').sort();
    expect(Object.keys({ ...cases, ...unreachable }).sort()).toEqual(promised);
    const readme = await readFile(join(repository, 'README.md'), 'utf8');
    const table = readme.slice(readme.indexOf('| code | what it usually is |'));
    const helped = [...table.matchAll(/^\| ((?:`[A-Z_]+` )+)\|/gm)].flatMap(([, first = '']) =>
      [...first.matchAll(/`([A-Z_]+)`/g)].map(([, code = '']) => code),
    );
    expect(helped.sort()).toEqual(promised);
  });

  it('belongs to a class', () => {
    for (const [code, { class: Class, exit }] of Object.entries(cases)) {
      const error = errorFor(code, 'message', 'hint');
      expect(error).toBeInstanceOf(Class);
      expect([error.name, error.exitCode]).toEqual([Class.name, exit]);
    }
  });
});

describe.skipIf(!isBuilt)('a mistake ends with', () => {
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-errors-'));
    const line = (i: number) => JSON.stringify({ text: `document ${i}: ${'some words '.repeat(i % 7)}` });
    await write('data/documents.jsonl', `${Array.from({ length: 60 }, (_, i) => line(i)).join('\n')}\n`);
    await writeParquet({
      path: at('hub', 'part-0.parquet'),
      documents: Array.from({ length: 40 }, (_, i) => `document ${i}`),
    });
    hub = await LocalHub.start({
      'owner/down': at('hub'),
      'owner/gated': { folder: at('hub'), gated: true },
    });
    hub.script = ({ path, file }) => (file !== null && path.includes('owner/down') ? { status: 503 } : null);
    await write(
      'tiny.yaml',
      `tokenizer: {train: {max_samples: 40, vocab_size: 300}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: ${at('data')}, sequence_length: 16, shuffle_buffer_size: 10}
training: {global_batch_size: 2, max_steps: 4, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: 1000}
evaluation: {sample_tokens: 0}
`,
    );
    const made = startIn(
      { cwd: root },
      'train-tokenizer-streaming',
      '--dataset',
      at('data'),
      '--vocab-size',
      '300',
      '--output',
      at('tokenizer'),
    );
    expect(await made.ended, made.stderr).toBe(0);
  });
  afterAll(async () => {
    killAll();
    await hub?.close();
    await rm(root, { recursive: true, force: true });
  });

  it.each(Object.keys(cases) as ErrorCode[])('%s', async (code) => {
    const found = cases[code] as Case;
    if (found.call !== undefined) {
      const error = await found.call().then(
        () => null,
        (cause: unknown) => cause,
      );
      expect(error).toBeInstanceOf(found.class);
      expect(error).toMatchObject({ code, exitCode: found.exit });
      expect((error as CandlewickError).message).toMatch(found.says);
      expect((error as CandlewickError).hint).toMatch(found.hint);
      return;
    }
    const env = {
      ...(needsHub.has(code) ? { HF_ENDPOINT: hub.url, HF_HOME: at('home') } : {}),
      ...(await found.env?.()),
    };
    const run = ['train-streaming', '--config', at('tiny.yaml'), '--output', at(`run-${code}`)];
    const [bin = '', ...argv] = (await found.command?.()) ?? [...run, ...((await found.argv?.()) ?? [])];
    let outcome: { code: number | string; stdout: string; stderr: string };
    if (found.from === undefined) {
      const program = startIn({ cwd: root, env }, bin, ...argv, '--json');
      outcome = { code: await program.ended, stdout: program.stdout, stderr: program.stderr };
    } else {
      const script = join(await found.from(), 'bin', `${bin}.js`);
      const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...argv, '--json'], {
        cwd: root,
        encoding: 'utf8',
      });
      outcome = { code: status ?? 'signal', stdout, stderr };
    }
    expect(outcome.code, outcome.stderr).toBe(found.exit);
    const told = JSON.parse(outcome.stdout.trim().split('\n').at(-1) ?? '{}') as Record<string, string>;
    expect(told, outcome.stderr).toMatchObject({ type: 'error', code });
    expect(told['message']).toMatch(found.says);
    expect(told['hint']).toMatch(found.hint);
    expect(outcome.stderr).toContain(`error[${code}]: ${told['message']}\nhint: ${told['hint']}\n`);
  });
});
