/** Several columns as one text: what a template makes of rows, and what it refuses. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configFromValues } from '../src/config/index.js';
import { HuggingFaceStreamingCorpus, type HuggingFaceCorpusOptions } from '../src/corpus/index.js';
import { StreamingTextDataLoader } from '../src/data/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { isBuilt, killAll, start } from './support/program.js';
import { python, runPython } from './support/python.js';

type Row = Record<string, string | null>;
const rows: Row[] = [
  { title: 'One', text: 'first', note: null },
  { title: null, text: 'no title' },
  { title: 'no text', text: '' },
  { title: null, text: null, note: 'all named columns are null' },
  { title: '', text: '' },
  { title: '{braces}', text: 'é 🕯\n"quoted"' },
];
const template = '# {title}\n\n{text} {{{title}}}';
const expected = [
  '# One\n\nfirst {One}',
  '# \n\nno title {}',
  '# no text\n\n {no text}',
  '# {braces}\n\né 🕯\n"quoted" {{braces}}',
];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-templates-'));
});
afterAll(async () => {
  killAll();
  await rm(folder, { recursive: true, force: true });
});

/** Writes `rows` as Parquet, a row group every two rows; `kinds` are Arrow types of the columns. */
async function parquet(name: string, kinds: Record<string, string>): Promise<string> {
  const path = join(folder, name);
  await runPython(
    `import json, sys, pyarrow as pa, pyarrow.parquet as pq
given = json.load(sys.stdin)
def column(name, kind):
    values = [row.get(name) for row in given["rows"]]
    kind = eval(kind)
    if pa.types.is_dictionary(kind): return pa.array(values).dictionary_encode()
    if pa.types.is_binary(kind): values = [None if v is None else v.encode() for v in values]
    return pa.array(values, kind)
table = pa.table({name: column(name, kind) for name, kind in given["kinds"].items()})
pq.write_table(table, given["path"], row_group_size=2)`,
    { path, rows, kinds },
  );
  return path;
}

const lines = (given: unknown[]) => given.map((row) => `${JSON.stringify(row)}\n`).join('');

async function documents(dataset: string, options: HuggingFaceCorpusOptions): Promise<string[]> {
  await using corpus = new HuggingFaceStreamingCorpus(dataset, { python, ...options });
  const found: string[] = [];
  for await (const text of corpus.stream()) found.push(text);
  return found;
}

describe('a template', () => {
  it.each([
    ['pa.string()', 'pa.string()'],
    ['pa.large_string()', 'pa.binary()'],
    ['pa.dictionary(pa.int32(), pa.string())', 'pa.string_view()'],
  ])('joins columns of Parquet (%s and %s)', async (title, text) => {
    const path = await parquet(`${title}-${text}.parquet`.replaceAll(/[()]/g, ''), { text, title });
    expect(await documents(path, { textTemplate: template })).toEqual(expected);
    expect(await documents(path, { textTemplate: template, batchSize: 1 })).toEqual(expected);
  });

  it('joins columns of JSON lines, plain, gz and JSON arrays', async () => {
    await writeFile(join(folder, 'rows.jsonl'), lines(rows));
    await writeFile(join(folder, 'rows.jsonl.gz'), gzipSync(lines(rows)));
    await writeFile(join(folder, 'rows.json'), JSON.stringify(rows));
    // A lone surrogate makes Arrow refuse the chunk: then lines are read one by one.
    await writeFile(join(folder, 'lone.jsonl'), `${lines(rows)}{"title":"\\ud800","text":"end"}\n`);
    for (const name of ['rows.jsonl', 'rows.jsonl.gz', 'rows.json']) {
      expect(await documents(join(folder, name), { textTemplate: template })).toEqual(expected);
    }
    expect(await documents(join(folder, 'lone.jsonl'), { textTemplate: template })).toEqual([
      ...expected,
      '# \uFFFD\n\nend {\uFFFD}',
    ]);
  });

  it('of a column that is not there names those that are', async () => {
    const path = await parquet('columns.parquet', { title: 'pa.string()', text: 'pa.string()' });
    await writeFile(join(folder, 'columns.jsonl'), lines(rows));
    for (const file of [path, join(folder, 'columns.jsonl')]) {
      await expect(documents(file, { textTemplate: '{title} {body}' })).rejects.toMatchObject({
        code: 'COLUMN_NOT_FOUND',
        message: expect.stringMatching(/no column 'body'; it has: title, text/),
      });
    }
  });

  it('asks for columns, which plain text has not', async () => {
    const mixed = join(folder, 'mixed');
    await mkdir(mixed);
    await writeFile(join(mixed, 'a.jsonl'), lines(rows));
    await writeFile(join(mixed, 'b.txt'), 'text');
    for (const dataset of [join(mixed, 'b.txt'), mixed, 'sample']) {
      await expect(documents(dataset, { textTemplate: '{text}' })).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining('a text template needs columns'),
      });
    }
  });

  it.each(['', 'no columns', '{{text}}', '{text', 'text}', '{}', '{a{b}}'])('%j is none', (textTemplate) => {
    expect(() => new HuggingFaceStreamingCorpus('x', { textTemplate })).toThrow(
      expect.objectContaining({ code: 'USAGE', hint: expect.stringContaining('{title}') }),
    );
    const values = {
      tokenizer: { path: 'x' },
      model: { architecture: 'llama', hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1 },
      training: { max_steps: 1 },
    };
    const model = { ...values.model, num_attention_heads: 1 };
    const config = (data: object) => configFromValues({ ...values, model, data: { dataset: 'x', ...data } });
    expect(() => config({ text_template: textTemplate })).toThrow(/data\.text_template/);
    expect(() => config({ text_template: '{a}', text_column: 'b' })).toThrow(/exclude each other/);
    expect(config({ text_template: '{a}', text_column: 'text' }).config.data.text_template).toBe('{a}');
  });

  it('is refused by the streamer, too, where it makes no sense', async () => {
    const path = await parquet('raw.parquet', { title: 'pa.string()' });
    const script = join(import.meta.dirname, '../src/corpus/streamer.py');
    const args = [script, '--protocol', 'json', '--dataset', path, '--text-template', '{title'];
    const stderr = await new Promise<string>((resolve) => {
      execFile(python, args, (_error, _stdout, text) => resolve(text));
    });
    expect(stderr).toMatch(/error: the text template '\{title' has a \{ without its pair/);
  });

  it('is part of what a stream is', async () => {
    const path = await parquet('identity.parquet', { title: 'pa.string()', text: 'pa.string()' });
    const tokenizer = await Tokenizer.train(['some text'], { vocabSize: 257 });
    const state = async (textTemplate: string | null, from?: string) => {
      await using corpus = new HuggingFaceStreamingCorpus(path, { python, textTemplate });
      const options = { batchSize: 1, sequenceLength: 8, state: from };
      await using loader = new StreamingTextDataLoader(corpus, tokenizer, options);
      for await (const batch of loader) return batch.state;
      throw new Error('no batch');
    };
    const first = await state('{title}: {text}');
    expect(await state('{title}: {text}', first)).not.toBe(first);
    for (const other of ['{text}', null]) {
      await expect(state(other, first)).rejects.toMatchObject({
        code: 'RESUME_MISMATCH',
        message: expect.stringContaining('text_template was "{title}: {text}"'),
      });
    }
  });
});

describe.skipIf(!isBuilt)('--text-template', () => {
  it('trains on the joined text, is in config.yaml, and may not change', async () => {
    const path = join(folder, 'many.jsonl');
    const many = Array.from({ length: 300 }, (_, i) => ({ title: `t${i}`, text: `some text ${i}` }));
    await writeFile(path, lines(many));
    const config = join(folder, 'tiny.yaml');
    await writeFile(
      config,
      `tokenizer: {train: {vocab_size: 270}}
model: {architecture: llama, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: ${path}, sequence_length: 16}
training: {global_batch_size: 2, max_steps: 2, threads: 1}
evaluation: {sample_tokens: 0}
`,
    );
    const output = join(folder, 'run');
    const ended = async (...argv: string[]) => {
      const program = start('train-streaming', ...argv);
      const code = await program.ended;
      return { code, stderr: program.stderr };
    };
    const train = (...argv: string[]) => ended('--config', config, '--output', output, ...argv);
    expect(await train('--text-template', '{title}: {text}')).toMatchObject({ code: 0 });
    const yaml = await readFile(join(output, 'config.yaml'), 'utf8');
    expect(yaml).toMatch(/text_template: ["']?\{title\}: \{text\}/);
    expect(await train('--text-template', '{text}', '--max-steps', '3')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('data.text_template'),
    });
    expect(await train('--text-template', '{text}', '--text-column', 'title')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('exclude each other'),
    });
    // The run's own configuration repeats it.
    expect(await ended('--config', join(output, 'config.yaml'), '--max-steps', '3')).toMatchObject({
      code: 0,
    });
  }, 60_000);
});
