/** The class Tokenizer as programs use it: typed arrays, bytes, offsets, streams, errors. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CandlewickError, ConfigurationError, EnvironmentError, Tokenizer } from '../src/index.js';
import { isBuilt } from './support/program.js';

const prose = 'The cat sat on the mat; the café by the 中文 mat. Naïve façades, 12 345 ￼ 😀😀 end.\n';
const hard = [
  '',
  ' ',
  'a',
  prose,
  '😀',
  'e\u0301 A\u030a \uac00\u1100\u1161 fin',
  'x<|endoftext|>y <|endoftext|>',
  '\0\u007f\u0085\u200d\ufeff',
  'a'.repeat(100_000),
];

let folder: string;
const tokenizers = new Map<string, Tokenizer>();

describe.skipIf(!isBuilt)('a tokenizer in a program', () => {
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'candlewick-tokenizer-'));
    for (const pattern of ['gpt2', 'cl100k', 'o200k', 'llama3', 'qwen2'] as const) {
      tokenizers.set(pattern, await Tokenizer.train([prose, prose], { vocabSize: 300, pattern }));
    }
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const gpt2 = () => tokenizers.get('gpt2') as Tokenizer;

  it('gives typed arrays, the same for a string and its bytes', async () => {
    for (const [pattern, tokenizer] of tokenizers) {
      for (const text of hard) {
        const ids = tokenizer.encode(text);
        expect(ids).toBeInstanceOf(Uint32Array);
        expect(tokenizer.encode(new TextEncoder().encode(text))).toEqual(ids);
        const expected = pattern === 'qwen2' ? text.normalize('NFC') : text;
        expect(tokenizer.decode(ids)).toBe(expected);
        expect(tokenizer.decode([...ids])).toBe(expected);
      }
      expect(await tokenizer.encodeBatch(hard)).toEqual(hard.map((text) => tokenizer.encode(text)));
      expect(await tokenizer.encodeBatch([])).toEqual([]);
    }
  });

  it('reads a part of a buffer where it lies', () => {
    const bytes = new TextEncoder().encode(`??${prose}??`);
    expect(gpt2().encode(bytes.subarray(2, -2))).toEqual(gpt2().encode(prose));
    expect(gpt2().encode(Buffer.from(prose))).toEqual(gpt2().encode(prose));
  });

  it('takes what is not UTF-8 as U+FFFD, and half a surrogate pair too', () => {
    const broken = Uint8Array.of(0x61, 0xff, 0xe4, 0xb8, 0x62, 0xc3);
    expect(gpt2().decode(gpt2().encode(broken))).toBe('a\ufffd\ufffdb\ufffd');
    expect(gpt2().decode(gpt2().encode('a\ud83db'))).toBe('a\ufffdb');
  });

  it('recognises special tokens unless they are to be text', () => {
    const text = 'a<|endoftext|>b';
    const { id, token } = gpt2().endOfText;
    expect([id, token]).toEqual([0, '<|endoftext|>']);
    expect(gpt2().encode(text)).toContain(id);
    const plain = gpt2().encode(text, { special: false });
    expect(plain).not.toContain(id);
    expect(gpt2().decode(plain)).toBe(text);
    expect(gpt2().decode(gpt2().encode(text), { skipSpecial: true })).toBe('ab');
    expect(gpt2().encodeWithOffsets(text, { special: false }).ids).toEqual(plain);
  });

  it('says where each token comes from: indices of a string, positions in bytes', () => {
    for (const [pattern, tokenizer] of tokenizers) {
      // Short of the huge one: the checks, not the offsets, would take long.
      for (const text of hard.map((whole) => whole.slice(0, 2000))) {
        // Marks that NFC composes are in no token's part, as in the tokenizers library.
        const composes = pattern === 'qwen2' && text !== text.normalize('NFC');
        const { ids, offsets } = tokenizer.encodeWithOffsets(text);
        expect(ids).toEqual(tokenizer.encode(text));
        expect(offsets).toHaveLength(2 * ids.length);
        let covered = 0;
        for (const [i, id] of ids.entries()) {
          const [start = -1, end = -1] = offsets.subarray(2 * i, 2 * i + 2);
          if (!composes) expect(start).toBeLessThanOrEqual(covered);
          const part = text.slice(start, end);
          const piece = tokenizer.decode([id]);
          // A token that is part of a character covers the whole of it.
          if (!composes && !piece.includes('\ufffd')) expect(part).toBe(piece);
          covered = end;
        }
        if (!composes) expect(covered).toBe(text.length);

        const bytes = Buffer.from(text);
        const inBytes = tokenizer.encodeWithOffsets(bytes).offsets;
        const slices = (of: Uint32Array, slice: (a: number, b: number) => string) =>
          Array.from({ length: ids.length }, (_, i) => slice(of[2 * i] as number, of[2 * i + 1] as number));
        expect(slices(inBytes, (a, b) => bytes.toString('utf8', a, b))).toEqual(
          slices(offsets, (a, b) => text.slice(a, b)),
        );
      }
    }
  });

  it('counts offsets in the bytes that were given, not in what they became', () => {
    const broken = Uint8Array.of(0x61, 0xff, 0xe4, 0xb8, 0x62, 0xc3, 0xa9, 0xc3);
    const { ids, offsets } = gpt2().encodeWithOffsets(broken);
    const parts = Array.from(ids, (_, i) => [...broken.subarray(offsets[2 * i], offsets[2 * i + 1])].join());
    // One to three tokens stand for each U+FFFD; each covers the bytes that it stands for.
    expect([...new Set(parts)]).toEqual(['97', '255', '228,184', '98', '195,169', '195']);
  });

  it('streams text without half a character, whatever comes', async () => {
    for (const tokenizer of tokenizers.values()) {
      const ids = tokenizer.encode(prose.repeat(3));
      const stream = tokenizer.decodeStream();
      const pieces = Array.from(ids, (id) => stream.push(id));
      expect(pieces.some((piece) => piece.includes('\ufffd'))).toBe(false);
      expect(pieces.join('') + stream.finish()).toBe(tokenizer.decode(ids));

      const generated: string[] = [];
      async function* source() {
        for (const id of ids) yield id;
      }
      for await (const piece of tokenizer.decodeStream().pieces(source())) generated.push(piece);
      expect(generated.join('')).toBe(tokenizer.decode(ids));
      expect(generated).not.toContain('');
      expect(stream.push(ids) + stream.finish()).toBe(tokenizer.decode(ids));
    }
    const half = gpt2().decodeStream();
    expect(half.push(gpt2().encode('🚀').subarray(0, 2))).toBe('');
    expect([half.finish(), half.finish()]).toEqual(['\ufffd', '']);
    const withEnd = gpt2().encode('a<|endoftext|>b');
    expect(gpt2().decodeStream({ skipSpecial: true }).push(withEnd)).toBe('ab');
    expect(gpt2().decodeStream().push([4_000_000_000])).toBe('');
  });

  it('refuses what is not a text or an id, by name', () => {
    const usage = expect.objectContaining({ code: 'USAGE', hint: expect.any(String) });
    expect(() => gpt2().encode(5 as unknown as string)).toThrow(usage);
    expect(() => gpt2().encodeWithOffsets(null as unknown as string)).toThrow(usage);
    for (const id of [-1, 1.5, Number.NaN, 2 ** 32]) {
      expect(() => gpt2().decode([id])).toThrow(usage);
      expect(() => gpt2().decodeStream().push(id)).toThrow(usage);
    }
    expect(gpt2().decode([])).toBe('');
  });

  it('loads and saves, and says what is wrong with a path', async () => {
    const directory = join(folder, 'saved');
    await gpt2().save(directory);
    const names = [
      'tokenizer.json',
      'tokenizer.tiktoken',
      'tokenizer_manifest.json',
      'special_tokens_map.json',
    ];
    expect(await readdir(directory)).toEqual(expect.arrayContaining(names));
    for (const path of [directory, join(directory, 'tokenizer.json')]) {
      const again = await Tokenizer.fromFile(path);
      expect(again.digest).toBe(gpt2().digest);
      expect(again.encode(prose)).toEqual(gpt2().encode(prose));
    }
    for (const path of ['', join(folder, 'nowhere'), folder]) {
      const error = await Tokenizer.fromFile(path).catch((cause: unknown) => cause);
      expect(error).toBeInstanceOf(ConfigurationError);
      expect(error).toMatchObject({ code: 'TOKENIZER_INVALID' });
    }
    await writeFile(join(folder, 'a-file'), '');
    const unwritable = await gpt2()
      .save(join(folder, 'a-file', 'below'))
      .catch((cause: unknown) => cause);
    expect(unwritable).toBeInstanceOf(EnvironmentError);
    expect(unwritable).toMatchObject({ code: 'NOT_WRITABLE' });
  });

  it('says that a text has no ids, rather than ending the process', async () => {
    const directory = join(folder, 'odd');
    await mkdir(directory);
    const file = JSON.parse(await readFile(join(folder, 'saved', 'tokenizer.json'), 'utf8')) as Record<
      string,
      unknown
    >;
    const split = { type: 'Split', pattern: { Regex: '(a+)+[bd]' }, behavior: 'Isolated', invert: false };
    const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
    file['pre_tokenizer'] = { type: 'Sequence', pretokenizers: [split, bytes] };
    await writeFile(join(directory, 'tokenizer.json'), JSON.stringify(file));
    const odd = await Tokenizer.fromFile(directory);
    expect(odd.decode(odd.encode('fine'))).toBe('fine');
    const text = `${'a'.repeat(100)}c`;
    const invalid = expect.objectContaining({
      code: 'TOKENIZER_INVALID',
      message: expect.stringContaining('101 bytes'),
    });
    expect(() => odd.encode(text)).toThrow(invalid);
    expect(() => odd.encodeWithOffsets(text)).toThrow(invalid);
    await expect(odd.encodeBatch(['fine', text])).rejects.toThrow(invalid);
    expect((await odd.inspect()).tokenizer.outside_registry).toContain('(a+)+[bd]');
  });

  it('inspects itself on any texts, and stops when it is told to', async () => {
    const report = await gpt2().inspect([prose, '', Buffer.from(prose)], { compareWith: { self: gpt2() } });
    const ids = gpt2().encode(prose, { special: false }).length;
    expect(report.sample).toMatchObject({ documents: 2, tokens: 2 * ids, lossless_documents: 2 });
    expect(report.sample?.scripts.map(({ script }) => script)).toContain('Han');
    expect(report.tokenizer).toMatchObject({ encoder: 'candlewick', pattern: 'gpt2', vocab_size: 300 });
    expect(report.tokenizer.unreachable).toMatchObject({ count: 0, of: 299 });
    expect(report.by_vocab_size).toMatchObject([{ vocab_size: 300, tokens: 2 * ids }]);
    expect(report.comparisons).toMatchObject([{ name: 'self', tokens: 2 * ids }]);
    expect((await gpt2().inspect([prose, prose, prose], { maxSamples: 1 })).sample?.documents).toBe(1);
    await expect(gpt2().inspect([''])).rejects.toMatchObject({ code: 'DATASET_EMPTY' });

    const controller = new AbortController();
    const endless = function* () {
      for (let n = 0; ; n++) {
        if (n === 10_000) controller.abort();
        yield prose;
      }
    };
    const stopped = gpt2().inspect(endless(), { signal: controller.signal });
    await expect(stopped).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(stopped).rejects.toBeInstanceOf(CandlewickError);
  });
});
