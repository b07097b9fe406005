/** Training a tokenizer: counts that are kept, stops, kills, limits; and what comes of them is always the same. */
import { randomInt } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HubProcess } from './support/hub-start.js';
import { isBuilt, killAll, startIn } from './support/program.js';
import { writeParquet } from './support/python.js';

const FILES = 6;
const parts = [
  'the',
  'quick',
  'brown',
  'fox',
  'jump',
  'over',
  'lazy',
  'dog',
  'and',
  'ünï',
  'ing',
  'ed',
  '中文',
  '',
];
const part = (n: number) => parts[n % parts.length] ?? '';
const documentOf = (file: number, row: number) =>
  Array.from({ length: 20 + row }, (_, i) => part(i * i + file) + part(i * 5 + row * 3) + part(i + row)).join(
    ['-', ' ', '\n'][row % 3],
  );
const documents = Array.from({ length: FILES }, (_, file) =>
  Array.from({ length: 40 }, (__, row) => documentOf(file, row)),
);

/** Every file of a directory, by name. */
async function contentOf(directory: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for (const name of (await readdir(directory)).sort())
    content[name] = await readFile(join(directory, name), 'latin1');
  return content;
}

describe.skipIf(!isBuilt)('Tokenizer.train', async () => {
  const { Tokenizer } = isBuilt ? await import('../dist/index.js') : { Tokenizer: null as never };
  const all = documents.flat();
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-training-'));
  });
  afterAll(() => rm(root, { recursive: true, force: true }));
  const digestOf = async (options: Parameters<typeof Tokenizer.train>[1], texts: readonly string[] = all) =>
    (await Tokenizer.train(texts, options)).native.digest();

  it('keeps counts that give any vocabulary without the text, and one of more text', async () => {
    const counts = join(root, 'counts.bin');
    const some = all.slice(0, 100);
    await Tokenizer.train(some, { vocabSize: 280, saveCounts: counts });
    expect(await digestOf({ vocabSize: 320, counts }, [])).toBe(await digestOf({ vocabSize: 320 }, some));
    expect(await digestOf({ vocabSize: 340, counts }, all.slice(100))).toBe(
      await digestOf({ vocabSize: 340 }),
    );
    await expect(Tokenizer.train([], { vocabSize: 320, counts, pattern: 'qwen2' })).rejects.toMatchObject({
      code: 'RESUME_MISMATCH',
      message: expect.stringContaining('pattern gpt2, not qwen2') as string,
    });
  });

  it('goes on from a tokenizer to what one training gives', async () => {
    const seedTokenizer = await Tokenizer.train(all, { vocabSize: 290 });
    expect(await digestOf({ vocabSize: 340, seedTokenizer })).toBe(await digestOf({ vocabSize: 340 }));
  });

  it('gives the same within a memory limit, and an error where it cannot', async () => {
    expect(await digestOf({ vocabSize: 340, memoryLimit: 1_500_000, spillDirectory: root })).toBe(
      await digestOf({ vocabSize: 340 }),
    );
    expect((await readdir(root)).filter((name) => name.startsWith('candlewick-'))).toEqual([]);
    const different = Array.from({ length: 40_000 }, (_, i) => `${i} x${i}y${i * 7919}`);
    await expect(Tokenizer.train(different, { vocabSize: 400, memoryLimit: 1 << 20 })).rejects.toMatchObject({
      code: 'OUT_OF_MEMORY_HOST',
      hint: expect.stringContaining('--memory-limit') as string,
    });
  });

  it('keeps tokens short, and rare pairs out', async () => {
    const short = await Tokenizer.train(all, { vocabSize: 300, maxTokenLength: 4 });
    const tokens = Array.from({ length: 43 }, (_, i) => short.decode([257 + i]));
    // Bytes that are no text by themselves decode to three.
    const whole = tokens.filter((token) => !token.includes('\u{FFFD}'));
    expect(whole.filter((token) => Buffer.byteLength(token) > 3)).toEqual([]);
    expect(whole.length).toBeGreaterThan(20);
    await expect(Tokenizer.train(all, { vocabSize: 2000, minFrequency: 1000 })).rejects.toMatchObject({
      code: 'VOCAB_TOO_LARGE',
    });
  });

  it('stops at an AbortSignal while counting, with ABORTED', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    function* endless() {
      for (let i = 0; ; i++) {
        if (i === 5000) controller.abort(reason);
        yield `document ${i}`;
      }
    }
    await expect(
      Tokenizer.train(endless(), { vocabSize: 300, signal: controller.signal }),
    ).rejects.toMatchObject({ code: 'ABORTED', cause: reason });
  });
});

describe.skipIf(!isBuilt)('train-tokenizer-streaming', () => {
  let root: string;
  let hub: HubProcess;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-train-tokenizer-'));
    await writeParquet(
      ...documents.map((texts, file) => ({
        path: join(root, 'data', `part-${file}.parquet`),
        documents: texts,
        groupRows: 9,
      })),
    );
    hub = await HubProcess.start({ repositories: { 'owner/words': join(root, 'data') } });
  });
  afterAll(async () => {
    killAll();
    await hub.close();
    await rm(root, { recursive: true, force: true });
  });

  const train = (output: string, ...argv: string[]) =>
    startIn(
      { env: { HF_ENDPOINT: hub.url, HF_HOME: join(root, 'hf') } },
      'train-tokenizer-streaming',
      '--dataset',
      'owner/words',
      '--vocab-size',
      '340',
      '--output',
      join(root, output),
      '--json',
      '--checkpoint-every',
      '0',
      ...argv,
    );
  /** Lets files from this one on be out of reach. */
  const only = (files: number) =>
    hub.tell({
      rules: [{ path: `part-[${files}-9]\\.parquet$`, ranged: true, fault: { status: 503 } }],
    });

  it('killed at any point and repeated ends with the same files', { timeout: 120_000 }, async () => {
    await hub.tell({ rules: [] });
    const whole = train('whole', '--save-counts');
    expect(await whole.ended, whole.stderr).toBe(0);
    const expected = await contentOf(join(root, 'whole'));
    expect(Object.keys(expected)).toContain('counts.bin');
    expect(existsSync(join(root, 'whole.partial'))).toBe(false);

    // What the shape of a file is asked for goes before the rows of the file before it.
    const stops = [...new Set([randomInt(2, FILES), randomInt(2, FILES)])].sort();
    let counted = false;
    for (const files of stops) {
      await only(files);
      const killed = train('killed', '--save-counts');
      await killed.saw(/"type":"progress","documents":([1-9]\d*),[^]*"documents":\1,/);
      killed.child.kill('SIGKILL');
      expect(await killed.ended).toBe('SIGKILL');
      counted ||= existsSync(join(root, 'killed.partial', 'progress.json'));
    }
    await hub.tell({ rules: [] });
    const last = train('killed', '--save-counts');
    expect(await last.ended, last.stderr).toBe(0);
    const goesOn = /going on after \d+ documents/.test(last.stderr);
    expect(goesOn, `stopped at files ${stops.join(' and ')}`).toBe(counted);
    expect(await contentOf(join(root, 'killed'))).toEqual(expected);
    expect(existsSync(join(root, 'killed.partial'))).toBe(false);
  });

  it('on Ctrl+C keeps what was counted, says how to go on, and exits with 130', {
    timeout: 60_000,
  }, async () => {
    await only(3);
    const stopped = train('stopped', '--checkpoint-every', '3600');
    await stopped.saw(/"type":"progress","documents":[1-9]/);
    stopped.child.kill('SIGINT');
    expect(await stopped.ended, stopped.stderr).toBe(130);
    expect(stopped.stderr).toContain('the same command goes on from the counts on disk');
    expect(existsSync(join(root, 'stopped.partial', 'progress.json'))).toBe(true);
    expect(existsSync(join(root, 'stopped.lock'))).toBe(false);

    const other = train('stopped', '--pattern', 'cl100k');
    expect(await other.ended).toBe(2);
    expect(other.stderr).toMatch(/holds counts of another stream: pattern was "gpt2" and is "cl100k" now/);
    const fewer = train('stopped', '--max-samples', '5');
    expect(await fewer.ended).toBe(2);
    expect(fewer.stderr).toContain('more than --max-samples 5');

    await hub.tell({ rules: [] });
    const last = train('stopped', '--max-samples', '200');
    expect(await last.ended, last.stderr).toBe(0);
    const direct = train('direct', '--max-samples', '200');
    expect(await direct.ended, direct.stderr).toBe(0);
    expect(await contentOf(join(root, 'stopped'))).toEqual(await contentOf(join(root, 'direct')));
  });

  it('trains other vocabularies from saved counts, without a dataset', { timeout: 60_000 }, async () => {
    await hub.tell({ rules: [] });
    const counts = join(root, 'saved.bin');
    const first = train('first', '--save-counts', counts);
    expect(await first.ended, first.stderr).toBe(0);
    const from = (...argv: string[]) => startIn({}, 'train-tokenizer-streaming', '--counts', ...argv);
    const second = from(counts, '--vocab-size', '300', '--output', join(root, 'second'), '--json');
    expect(await second.ended, second.stderr).toBe(0);
    const direct = train('direct-300', '--vocab-size', '300');
    expect(await direct.ended, direct.stderr).toBe(0);
    const tokenizerOf = async (name: string) => (await contentOf(join(root, name)))['tokenizer.json'];
    expect(await tokenizerOf('second')).toBe(await tokenizerOf('direct-300'));
    const missing = from(join(root, 'none.bin'), '--output', join(root, 'none'));
    expect(await missing.ended).toBe(2);
    expect(missing.stderr).toContain('--save-counts');
  });
});
