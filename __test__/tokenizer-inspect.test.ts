/** `candlewick tokenizer inspect`, `encode` and `decode` as people and programs run them. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tokenizer } from '../src/index.js';
import { isBuilt } from './support/program.js';
import { python, repository, writeParquet } from './support/python.js';

const texts = [
  'The cat sat on the mat, 12 times.\n',
  'Le café est à côté.',
  '中文和日本語',
  'x <|endoftext|> y',
];

describe.skipIf(!isBuilt)('candlewick tokenizer', () => {
  let cwd: string;
  beforeAll(async () => {
    cwd = await mkdtemp(join(tmpdir(), 'candlewick-inspect-'));
    const small = await Tokenizer.train(texts, { vocabSize: 290 });
    await small.save(join(cwd, 'mine'));
    await (await Tokenizer.train(texts, { vocabSize: 280, pattern: 'cl100k' })).save(join(cwd, 'other'));
    await writeFile(join(cwd, 'a.txt'), texts.join('\n'));
    await writeFile(
      join(cwd, 'b.jsonl'),
      texts.map((text) => JSON.stringify({ text, body: null })).join('\n'),
    );
  });
  afterAll(() => rm(cwd, { recursive: true, force: true }));

  const run = (argv: string[], { input = '', env = {} }: { input?: string | Buffer; env?: object } = {}) => {
    const caches = {
      HF_HOME: join(cwd, 'hf'),
      TIKTOKEN_CACHE_DIR: join(cwd, 'tiktoken'),
      HF_HUB_CACHE: undefined,
    };
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(repository, 'bin', 'candlewick.js'), 'tokenizer', ...argv],
      { cwd, input, encoding: 'utf8', env: { ...process.env, CANDLEWICK_PYTHON: python, ...caches, ...env } },
    );
    return { status, stdout, stderr };
  };
  const inspected = (argv: string[], options = {}) => {
    const { status, stdout, stderr } = run(['inspect', ...argv, '--json'], options);
    expect(status, stderr).toBe(0);
    return JSON.parse(stdout);
  };

  it('inspects on text files and lines of JSON without Python', () => {
    const without = { env: { CANDLEWICK_PYTHON: '/nowhere' } };
    const one = inspected(['mine', '--text', 'a.txt'], without);
    expect(one).toMatchObject({ type: 'inspected', tokenizer: { pattern: 'gpt2', vocab_size: 290 } });
    expect(one.sample).toMatchObject({ documents: 1, lossless_documents: 1 });
    expect(one.not_compared).toEqual(['gpt2', 'cl100k', 'o200k']);
    const lines = inspected(['mine', '--text', 'b.jsonl'], without);
    expect(lines.sample.documents).toBe(4);
    const both = inspected(['mine', '--text', 'a.txt', '--text', 'b.jsonl', '--max-samples', '3'], without);
    expect(both.sample.documents).toBe(3);
  });

  it('says what it is where there is no text to read', () => {
    const { status, stdout, stderr } = run(['inspect', 'mine'], { env: { CANDLEWICK_PYTHON: '/nowhere' } });
    expect([status, stderr.includes('--text FILE needs no Python')]).toEqual([0, true]);
    expect(stdout).toContain('served by       candlewick, pattern gpt2, Unicode 16.0.0');
    expect(stdout).toContain('every one of 289 tokens is what its bytes merge into');
    expect(stdout).not.toContain('sample:');
  });

  it('prints a report for people, in which nothing can move the cursor', () => {
    const { status, stdout, stderr } = run(['inspect', 'mine', '--text', 'b.jsonl', '--compare', 'other']);
    expect(status, stderr).toBe(0);
    for (const part of [
      'bytes/token',
      'tokens/word',
      'Latin',
      'Han',
      'digits',
      'never produced',
      'longest tokens',
    ]) {
      expect(stdout).toContain(part);
    }
    expect(stdout).toMatch(/other +280 tokens +[\d.]+ +at 280: [\d.]+, this one [\d.]+/);
    expect(stdout.replaceAll('\n', '')).not.toMatch(/\p{Cc}/u);
  });

  it('compares with what the caches hold', async () => {
    const snapshot = join(cwd, 'hf', 'hub', 'models--openai-community--gpt2', 'snapshots', 'abc');
    await mkdir(snapshot, { recursive: true });
    await copyFile(join(cwd, 'other', 'tokenizer.json'), join(snapshot, 'tokenizer.json'));
    const url = 'https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken';
    await mkdir(join(cwd, 'tiktoken'));
    const cached = join(cwd, 'tiktoken', createHash('sha1').update(url).digest('hex'));
    await copyFile(join(cwd, 'other', 'tokenizer.tiktoken'), cached);
    const { comparisons, not_compared } = inspected(['mine', '--text', 'a.txt']);
    expect(comparisons).toMatchObject([{ name: 'gpt2' }, { name: 'cl100k' }]);
    // The same merges, from a tokenizer.json and from a rank file.
    expect(comparisons[1].tokens).toBe(comparisons[0].tokens);
    expect(not_compared).toEqual(['o200k']);
    await writeFile(cached, 'no rank file');
    const { status, stderr } = run(['inspect', 'mine', '--text', 'a.txt']);
    expect(status).toBe(0);
    expect(stderr).toContain('cl100k');
    await rm(join(cwd, 'hf'), { recursive: true });
    await rm(join(cwd, 'tiktoken'), { recursive: true });
  });

  it('reads what the streamer reads', async () => {
    await writeParquet({ path: join(cwd, 'c.parquet'), documents: [...texts, null], groupRows: 2 });
    expect(inspected(['mine', '--text', 'c.parquet']).sample.documents).toBe(4);
    const sample = inspected(['mine', '--max-samples', '20']);
    expect(sample.sample.documents).toBe(20);
  });

  it('says what is wrong with a text', async () => {
    await writeFile(join(cwd, 'bad.jsonl'), '{"text": "fine"}\nnot json\n');
    const code = (argv: string[]) => {
      const { status, stderr } = run(['inspect', 'mine', ...argv]);
      return [status, /error\[(\w+)\]/.exec(stderr)?.[1], stderr.includes('hint: ')];
    };
    expect(code(['--text', 'nowhere.txt'])).toEqual([4, 'DATASET_NOT_FOUND', true]);
    expect(code(['--text', 'bad.jsonl'])).toEqual([4, 'SOURCE_CORRUPT', true]);
    expect(code(['--text', 'b.jsonl', '--text-column', 'title'])).toEqual([4, 'COLUMN_NOT_FOUND', true]);
    expect(code(['--text', 'b.jsonl', '--text-column', 'body'])).toEqual([4, 'DATASET_EMPTY', true]);
    expect(code(['--text', 'a.txt', '--max-samples', '0'])).toEqual([2, 'USAGE', true]);
    expect(code(['--text', 'a.txt', '--compare', 'nowhere'])).toEqual([2, 'TOKENIZER_INVALID', true]);
  });

  it('encodes and decodes arguments and standard input', async () => {
    const tokenizer = await Tokenizer.fromFile(join(cwd, 'mine'));
    const [text = ''] = texts;
    const ids = [...tokenizer.encode(text)];
    expect(run(['encode', 'mine', text]).stdout).toBe(`${ids.join(' ')}\n`);
    const piped = run(['encode', 'mine'], { input: text });
    expect(piped.stdout).toBe(`${ids.join(' ')}\n`);
    expect(run(['decode', 'mine'], { input: piped.stdout }).stdout).toBe(`${text}\n`);
    expect(run(['decode', 'mine', ids.join(',')]).stdout).toBe(`${text}\n`);
    expect(JSON.parse(run(['decode', 'mine', '--json', ...ids.map(String)]).stdout).text).toBe(text);

    const [special = ''] = texts.slice(-1);
    expect(run(['encode', 'mine', special]).stdout.split(' ')).toContain('0');
    const plain = run(['encode', 'mine', special, '--no-special']).stdout;
    expect(plain.split(/\s/)).not.toContain('0');
    expect(run(['decode', 'mine', '--skip-special', '0', ...plain.trim().split(' ')]).stdout).toBe(
      `${special}\n`,
    );
    const outside = run(['decode', 'mine', '290']);
    expect([outside.status, outside.stderr]).toEqual([2, expect.stringContaining('0 to 289')]);
  });

  it('prints where each token comes from, in bytes', async () => {
    const text = 'né 中\u009b';
    const lines = run(['encode', 'mine', text, '--offsets']).stdout.trimEnd().split('\n');
    const rows = lines.map((line) => line.split('\t'));
    const bytes = Buffer.from(text);
    expect(rows[0]?.slice(1)).toEqual(['0', '1', '"n"']);
    expect(rows.at(-1)?.[2]).toBe(String(bytes.length));
    expect(lines.join('')).not.toContain('\u009b');
    const { ids, offsets } = JSON.parse(run(['encode', 'mine', '--offsets', '--json', text]).stdout);
    expect(rows.map(([id]) => Number(id))).toEqual(ids);
    expect(rows.flatMap(([, from, to]) => [Number(from), Number(to)])).toEqual(offsets);
    expect(await readFile(join(cwd, 'mine', 'tokenizer.tiktoken'), 'utf8')).toMatch(/^IQ== 1$/m);
  });
});
