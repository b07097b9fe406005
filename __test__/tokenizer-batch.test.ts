import { beforeAll, describe, expect, test } from 'vitest';
import { Tokenizer } from '../dist/index.js';

const sentence =
  'The quick brown fox jumps over the lazy dog, doesn\u2019t it? 12345 \u4e2d\u6587 \u043c\u0438\u0440\n';

describe('encodeBatch', () => {
  let tokenizer: Tokenizer;

  beforeAll(async () => {
    tokenizer = await Tokenizer.train([sentence.repeat(50)], { vocabSize: 300 });
  });

  const bytes = (text: string) => new TextEncoder().encode(text);

  async function same(texts: (string | Uint8Array)[], expected: string[], threads?: number): Promise<void> {
    const ids = await tokenizer.encodeBatch(texts, threads === undefined ? {} : { threads });
    expect(ids).toEqual(expected.map((text) => tokenizer.encode(text)));
  }

  test('gives the ids of strings and of bytes, in order, on any number of threads', async () => {
    const expected = Array.from({ length: 500 }, (_, at) => sentence.slice(at % 30).repeat(1 + (at % 40)));
    const texts = expected.map((text, at) => (at % 3 === 0 ? text : bytes(text)));
    for (const threads of [undefined, 1, 2, 7]) await same(texts, expected, threads);
  });

  test('gives empty arrays for empty texts, and none for none', async () => {
    expect(await tokenizer.encodeBatch([])).toEqual([]);
    await same(['', new Uint8Array(), sentence, ''], ['', '', sentence, '']);
  });

  test('reads a part of a buffer at any address', async () => {
    const whole = bytes(sentence.repeat(3));
    const ascii = sentence.indexOf('\u2019');
    const texts = Array.from({ length: 20 }, (_, at) => whole.subarray(at, ascii - (at % 9)));
    await same(
      texts,
      texts.map((text) => new TextDecoder().decode(text)),
    );
  });

  test('reads bytes that are not UTF-8 as U+FFFD', async () => {
    const broken = Uint8Array.from([0x61, 0xff, 0xe4, 0xb8, 0x62, 0xf0, 0x9f]);
    await same([broken], [new TextDecoder().decode(broken)]);
  });

  test('copies bytes whose memory is shared or may change its size', async () => {
    const shared = new Uint8Array(new SharedArrayBuffer(5));
    shared.set(bytes('hello'));
    // Node 20 has resizable buffers; the types that this project compiles with do not.
    const Resizable = ArrayBuffer as unknown as new (
      length: number,
      options: { maxByteLength: number },
    ) => ArrayBuffer & { resize(length: number): void };
    const buffer = new Resizable(5, { maxByteLength: 16 });
    const resizable = new Uint8Array(buffer);
    resizable.set(bytes('world'));
    const encoding = same([shared, resizable], ['hello', 'world']);
    buffer.resize(0);
    await encoding;
  });

  test('goes on while the array that it was given changes', async () => {
    const texts = [sentence, bytes(sentence)];
    const encoding = same(texts, [sentence, sentence]);
    texts.length = 0;
    await encoding;
  });

  test('refuses what is no text', async () => {
    const numbers = [1, new Uint16Array(2)] as unknown as string[];
    await expect(tokenizer.encodeBatch(['a', ...numbers])).rejects.toThrow('text 1 is neither a string nor');
    await expect(tokenizer.encodeBatch(numbers.slice(1))).rejects.toThrow('text 0 is neither');
  });

  test('gives memory back to later batches and leaves the arrays of earlier ones alone', async () => {
    const text = sentence.repeat(40_000);
    const first = (await tokenizer.encodeBatch([text], { threads: 1 }))[0] as Uint32Array;
    const copy = first.slice();
    for (let round = 0; round < 20; round++) await tokenizer.encodeBatch([text.slice(round)], { threads: 1 });
    expect(Buffer.compare(Buffer.from(first.buffer), Buffer.from(copy.buffer))).toBe(0);
  });

  test('takes memory back at once from arrays that it is given for reuse', async () => {
    const text = sentence.repeat(40_000);
    const expected = tokenizer.encode(text);
    // Millions of numbers: compared as bytes.
    const same = (ids: Uint32Array) =>
      Buffer.compare(Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength), Buffer.from(expected.buffer));
    const encoded = async (reuse: Uint32Array[]) => {
      const ids = await tokenizer.encodeBatch([text, text], { threads: 1, reuse });
      expect(ids.map(same)).toEqual([0, 0]);
      return ids;
    };
    const copy = expected.slice();
    let ids = await encoded([]);
    const held = process.memoryUsage().arrayBuffers;
    for (let round = 0; round < 5; round++) {
      const earlier = ids;
      ids = await encoded(earlier);
      expect(earlier.map((array) => array.length)).toEqual([0, 0]);
      // However late the collector comes: what was given back is no longer held.
      expect(process.memoryUsage().arrayBuffers).toBeLessThan(held + expected.byteLength);
      // Given back twice, or never ours: left alone.
      ids = await encoded([...earlier, ...ids, copy]);
    }
    expect(same(copy)).toBe(0);
  });

  test('has the ids of many texts in their order, whichever thread encodes them, and takes all of them back', async () => {
    // So long that each thread has several parts of its own, and takes some of another's.
    const texts = Array.from({ length: 1000 }, (_, at) =>
      at % 7 === 0 ? '' : `${at} ${sentence.repeat(at % 60)}`,
    );
    const expected = texts.map((text) => tokenizer.encode(text));
    let ids: Uint32Array[] = [];
    for (const threads of [3, 1, 2, 8, 2]) {
      const earlier = ids;
      ids = await tokenizer.encodeBatch(texts, { threads, reuse: earlier });
      expect(ids).toEqual(expected);
      expect(earlier.every((array) => array.length === 0)).toBe(true);
    }
  });

  test('reads a text that lies in memory given for reuse as empty, and never what is written there', async () => {
    const [ids] = await tokenizer.encodeBatch([sentence.repeat(40_000)], { threads: 1 });
    const { buffer } = ids as Uint32Array;
    const texts = [new Uint8Array(buffer), sentence];
    const again = await tokenizer.encodeBatch(texts, { threads: 1, reuse: [ids as Uint32Array] });
    expect(again).toEqual([new Uint32Array(), tokenizer.encode(sentence)]);
  });
});
