/** What streamer.py makes of files: the wire format, and every format that can be read. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { documentsOf } from './support/frames.js';
import { runPython, writeParquet } from './support/python.js';
import { Session } from './support/session.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-formats-'));
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

const place = (name: string) => join(folder, name);
const put = async (name: string, content: string | Uint8Array) => {
  await mkdir(dirname(place(name)), { recursive: true });
  await writeFile(place(name), content);
  return place(name);
};
const jsonLines = (documents: unknown[]) =>
  documents.map((text) => `${JSON.stringify({ n: 1, text })}\n`).join('');
const numbered = (count: number) =>
  Array.from({ length: count }, (_, i) => `document ${i} ${'x'.repeat(i % 50)}`);

async function documentsIn(path: string, ...args: string[]): Promise<string[]> {
  await using session = new Session(['--dataset', path, ...args]);
  await session.ready();
  return await session.documents(0);
}

const zstd = (content: string) =>
  runPython(
    `import sys, json, zstandard, base64
print(base64.b64encode(zstandard.compress(json.load(sys.stdin).encode())).decode(), end="")`,
    content,
  ).then((text) => Buffer.from(text, 'base64'));

describe('parquet', () => {
  it('is read by row group, in frames of at most batch-size documents', async () => {
    const documents = numbered(250);
    await writeParquet({ path: place('groups.parquet'), documents, groupRows: 100 });
    await using session = new Session(['--dataset', place('groups.parquet'), '--batch-size', '37']);
    const ready = await session.ready();
    expect(ready).toMatchObject({
      row_groups: true,
      total_rows: 250,
      columns: ['number', 'text'],
      revision: null,
    });
    expect(ready.files).toEqual([place('groups.parquet')]);
    expect(await session.groups(0)).toEqual([100, 100, 50]);
    const frames = await session.read(0, 1, 0, 100);
    expect(frames.map(({ json }) => [json.row, json.rows, json.end])).toEqual([
      [0, 37, false],
      [37, 37, false],
      [74, 26, true],
    ]);
    expect(frames.flatMap(documentsOf)).toEqual(documents.slice(100, 200));
  });

  it('is read from any row on, and no further than asked', async () => {
    const documents = numbered(250);
    await writeParquet({ path: place('part.parquet'), documents, groupRows: 100 });
    await using session = new Session(['--dataset', place('part.parquet')]);
    await session.ready();
    const rest = await session.read(0, 2, 13, 37);
    expect(rest.flatMap(documentsOf)).toEqual(documents.slice(213));
    expect(rest.at(-1)?.json).toMatchObject({ row: 13, rows: 37, end: true });
    const middle = await session.read(0, 1, 40, 20);
    expect(middle.flatMap(documentsOf)).toEqual(documents.slice(140, 160));
    expect(middle.at(-1)?.json.end).toBe(false);
  });

  it.each([
    'pa.string()',
    'pa.large_string()',
    'pa.binary()',
    'pa.large_binary()',
    'pa.dictionary(pa.int32(), pa.string())',
  ])('of type %s gives the same documents, nulls as empty ones', async (type) => {
    const documents = ['first', null, '', 'no accents', null, 'x'.repeat(5000), 'last'];
    const path = place(`${type.replace(/\W/g, '-')}.parquet`);
    await writeParquet({ path, documents, groupRows: 3, type });
    expect(await documentsIn(path)).toEqual(documents.map((document) => document ?? ''));
  });

  it('keeps accents, quotes, newlines, NUL and what lies beyond the first plane', async () => {
    const documents = ['é\n"quoted"\r\n', 'a\0b', '日本語 🕯️', '\u{10FFFF}'];
    await writeParquet({ path: place('unicode.parquet'), documents });
    expect(await documentsIn(place('unicode.parquet'))).toEqual(documents);
  });

  it('with text that is not UTF-8 gives U+FFFD and says so once', async () => {
    await writeParquet({
      path: place('bytes.parquet'),
      documents: ['good', 'bad \xff byte', '\xc3'],
      type: 'pa.binary()',
    });
    await using session = new Session(['--dataset', place('bytes.parquet')]);
    await session.ready();
    expect(await session.documents(0)).toEqual(['good', 'bad \uFFFD byte', '\uFFFD']);
    session.send({ op: 'close' });
    await session.next('done');
    expect(session.aside.filter(({ kind }) => kind === 'progress').map(({ json }) => json.message)).toEqual([
      expect.stringMatching(/2 documents were not valid UTF-8/),
    ]);
  });

  it('inside gzip is read too', async () => {
    const { readFile } = await import('node:fs/promises');
    await writeParquet({ path: place('inner.parquet'), documents: ['a', 'b'] });
    await put('outer.parquet.gz', gzipSync(await readFile(place('inner.parquet'))));
    expect(await documentsIn(place('outer.parquet.gz'))).toEqual(['a', 'b']);
  });

  it('with a flipped bit in a page is reported, not read', async () => {
    const { readFile } = await import('node:fs/promises');
    await writeParquet({ path: place('flip.parquet'), documents: numbered(500), compression: 'none' });
    const content = await readFile(place('flip.parquet'));
    const at = content.indexOf('document 250');
    content[at] = (content[at] ?? 0) ^ 1;
    await put('flip.parquet', content);
    await using session = new Session(['--dataset', place('flip.parquet')]);
    await session.ready();
    session.send({ op: 'read', file: 0, group: 0, row: 0, rows: 500 });
    const complaint = await session.complaint();
    expect(complaint).toMatchObject({ code: 'SOURCE_CORRUPT', id: 0 });
    expect(complaint.message).toContain('flip.parquet');
  });
});

describe('a frame', () => {
  it('holds at most 32 MiB unless one document is larger, and a document may have 50 MB', async () => {
    const big = 'x'.repeat(50_000_000);
    const documents = ['small', 'y'.repeat(20 << 20), 'z'.repeat(20 << 20), big, 'end'];
    await runPython(
      `import sys, json, pyarrow as pa, pyarrow.parquet as pq
documents = ["small", "y" * (20 << 20), "z" * (20 << 20), "x" * 50_000_000, "end"]
pq.write_table(pa.table({"text": documents}), json.load(sys.stdin))`,
      place('big.parquet'),
    );
    await using session = new Session(['--dataset', place('big.parquet')]);
    await session.ready();
    const frames = await session.read(0, 0, 0, 5);
    for (const frame of frames) {
      expect((frame.json.rows as number) === 1 || frame.binary.length <= (32 << 20) + 64).toBe(true);
    }
    const lengths = frames.flatMap(documentsOf).map((document) => document.length);
    expect(lengths).toEqual(documents.map((document) => document.length));
  });
});

describe('JSON lines', () => {
  const documents = ['first', 'é\n"x"', null, '', 'x'.repeat(100_000), 'last'];
  const expected = documents.map((document) => document ?? '');

  it('give one document a row; a row without the column is a null', async () => {
    const path = await put('rows.jsonl', `${jsonLines(documents)}\n{"other":[1,{"a":2}]}\r\n`);
    await using session = new Session(['--dataset', path]);
    expect(await session.ready()).toMatchObject({ row_groups: false, columns: ['n', 'text', 'other'] });
    expect(await session.groups(0)).toBeNull();
    expect(await session.documents(0)).toEqual([...expected, '']);
  });

  it('are read as .json, .ndjson, .gz and .zst', async () => {
    const lines = jsonLines(documents);
    expect(await documentsIn(await put('a.json', lines))).toEqual(expected);
    expect(await documentsIn(await put('a.ndjson', lines))).toEqual(expected);
    expect(await documentsIn(await put('a.jsonl.gz', gzipSync(lines)))).toEqual(expected);
    expect(await documentsIn(await put('a.jsonl.zst', await zstd(lines)))).toEqual(expected);
  });

  it('in several gzip members or zstd frames are read to the last', async () => {
    const parts = [
      jsonLines(documents.slice(0, 3)),
      jsonLines(documents.slice(3)),
      '',
      '{"text":"cut',
      ' in two"}',
    ];
    const gzip = Buffer.concat(parts.map((part) => gzipSync(part)));
    const frames = Buffer.concat(await Promise.all(parts.map(zstd)));
    for (const path of [await put('members.jsonl.gz', gzip), await put('frames.jsonl.zst', frames)]) {
      expect(await documentsIn(path)).toEqual([...expected, 'cut in two']);
    }
  });

  it.each(['gz', 'zst'])('in a damaged .%s are reported, not read', async (kind) => {
    const text = jsonLines(Array.from({ length: 200_000 }, (_, i) => `document ${i} ${Math.sin(i)}`));
    const whole = kind === 'gz' ? gzipSync(text) : await zstd(text);
    const flipped = Buffer.from(whole);
    flipped[whole.length >> 1] = (flipped[whole.length >> 1] ?? 0) ^ 0xff;
    const cut = whole.subarray(0, (whole.length * 3) >> 2);
    const bad = { flipped, cut };
    for (const [name, content] of Object.entries(bad)) {
      await using session = new Session(['--dataset', await put(`${name}.jsonl.${kind}`, content)]);
      await session.ready();
      let turn = 0;
      for (;;) {
        session.send({ op: 'read', file: 0, group: turn++, row: 0, rows: 1000 });
        const frame = await session.next('batch');
        if (frame?.kind === 'error') {
          expect(frame.json).toMatchObject({
            code: 'SOURCE_CORRUPT',
            message: expect.stringContaining(`${name}.jsonl.${kind}`),
          });
          break;
        }
        expect(frame?.json.eof).toBe(false);
      }
    }
  });

  it.each(['gz', 'zst'])('in a .%s that is cut behind a line are reported, too', async (kind) => {
    // Flushed and never finished: what is there decompresses to whole lines.
    const base64 = await runPython(
      `import sys, json, zlib, zstandard, base64
kind, text = json.load(sys.stdin)
packer = zlib.compressobj(wbits=31) if kind == "gz" else zstandard.ZstdCompressor().compressobj()
flush = zlib.Z_SYNC_FLUSH if kind == "gz" else zstandard.COMPRESSOBJ_FLUSH_BLOCK
print(base64.b64encode(packer.compress(text.encode()) + packer.flush(flush)).decode(), end="")`,
      [kind, jsonLines(documents)],
    );
    const path = await put(`behind-a-line.jsonl.${kind}`, Buffer.from(base64, 'base64'));
    await using session = new Session(['--dataset', path]);
    session.send({ op: 'read', file: 0, group: 0, row: 0, rows: 1000 });
    const complaint = await session.next('batch');
    expect(complaint).toMatchObject({ kind: 'error', json: { code: 'SOURCE_CORRUPT' } });
  });

  it('may be one array, of objects or of strings', async () => {
    const objects = documents.map((text) => ({ text }));
    expect(await documentsIn(await put('objects.json', JSON.stringify(objects, null, 1)))).toEqual(expected);
    expect(await documentsIn(await put('strings.json', JSON.stringify(['a', 'b'])))).toEqual(['a', 'b']);
  });

  it('with a byte order mark, lone surrogates or bad bytes lose nothing else', async () => {
    const path = await put(
      'odd.jsonl',
      Buffer.concat([
        Buffer.from('\uFEFF{"text":"first"}\n{"text":"lone \\ud800 surrogate"}\n{"text":"bad '),
        Buffer.from([0xff]),
        Buffer.from(' byte"}\n{"text":"pair \\ud83d\\udd6f"}'),
      ]),
    );
    expect(await documentsIn(path)).toEqual(['first', 'lone \uFFFD surrogate', 'bad \uFFFD byte', 'pair 🕯']);
  });

  it('that are damaged are reported with file and row', async () => {
    const path = await put('damaged.jsonl', `${jsonLines(numbered(1500))}{"text": "cut\n${jsonLines(['x'])}`);
    await using session = new Session(['--dataset', path]);
    await session.ready();
    session.send({ op: 'read', file: 0, group: 0, row: 0, rows: 1000 });
    const complaint = await session.complaint();
    expect(complaint.code).toBe('SOURCE_CORRUPT');
    expect(complaint.message).toMatch(/damaged\.jsonl: row 1500 is not JSON/);
  });

  it('come in turns of 1,000 rows; the turn that exhausts the file says so', async () => {
    const all = numbered(2000);
    const path = await put('turns.jsonl', jsonLines(all));
    await using session = new Session(['--dataset', path, '--batch-size', '600']);
    await session.ready();
    const first = await session.read(0, 0);
    expect(first.map(({ json }) => [json.row, json.rows, json.end, json.eof])).toEqual([
      [0, 600, false, false],
      [600, 400, true, false],
    ]);
    const second = await session.read(0, 1);
    expect(second.at(-1)?.json).toMatchObject({ end: true, eof: true });
    expect([...first, ...second].flatMap(documentsOf)).toEqual(all);
    // Back to a row inside an earlier turn: the file is read again from the front.
    const again = await session.read(0, 0, 990, 10);
    expect(again.flatMap(documentsOf)).toEqual(all.slice(990, 1000));
    expect(again.at(-1)?.json).toMatchObject({ end: true, eof: false });
    expect((await session.read(0, 2)).map(({ json }) => [json.rows, json.end, json.eof])).toEqual([
      [0, true, true],
    ]);
  });
});

describe('text files', () => {
  it('are one document each, compressed or not, in the order of their paths', async () => {
    await put('texts/b.txt', 'second\nline\n');
    await put('texts/a/z.txt.gz', gzipSync('first'));
    await put('texts/c.txt', Buffer.from([0x61, 0xff, 0x62]));
    await put('texts/d.txt', '');
    await put('texts/e.txt.zst', await zstd('fifth'));
    await using session = new Session(['--dataset', place('texts')]);
    const ready = await session.ready();
    expect(ready.files).toEqual(['a/z.txt.gz', 'b.txt', 'c.txt', 'd.txt', 'e.txt.zst']);
    const found: string[][] = [];
    for (const file of ready.files.keys()) found.push(await session.documents(file));
    expect(found).toEqual([['first'], ['second\nline\n'], ['a\uFFFDb'], [], ['fifth']]);
  });

  it('and JSON lines and parquet may lie in one directory', async () => {
    await put('mixed/b.jsonl', jsonLines(['two']));
    await put('mixed/c.txt', 'three');
    await writeParquet({ path: place('mixed/a.parquet'), documents: ['one', 'more'], groupRows: 1 });
    await using session = new Session(['--dataset', place('mixed')]);
    const ready = await session.ready();
    expect(ready).toMatchObject({ row_groups: false, files: ['a.parquet', 'b.jsonl', 'c.txt'] });
    const found: string[][] = [];
    for (const file of ready.files.keys()) found.push(await session.documents(file));
    expect(found).toEqual([['one', 'more'], ['two'], ['three']]);
  });
});

describe('sample', () => {
  it('is the same text in the same order every time, from Python itself', async () => {
    const read = async () => {
      // Neither an environment nor a library is needed for it, only the checksum.
      await using session = new Session(['--dataset', 'sample', '--heartbeat', '60']);
      const ready = await session.ready();
      const documents: string[] = [];
      for (const file of ready.files.keys()) documents.push(...(await session.documents(file)));
      return { ready, documents };
    };
    const [a, b] = await Promise.all([read(), read()]);
    expect(a).toEqual(b);
    expect(a.ready).toMatchObject({ dataset: 'sample', split: 'train', row_groups: false });
    expect(a.documents.length).toBe(a.ready.total_rows);
    expect(a.documents.join('').length).toBeGreaterThan(5_000_000);
    expect(a.documents.some((text) => text.includes('def asdict'))).toBe(true);
    expect(a.documents.some((text) => text.startsWith('The "assert" statement'))).toBe(true);
  });
});

describe('requests', () => {
  it('are answered in the order given, also when files are read side by side', async () => {
    for (const name of ['a', 'b', 'c']) {
      await writeParquet({ path: place(`side/${name}.parquet`), documents: numbered(300), groupRows: 100 });
    }
    await using session = new Session(['--dataset', place('side')]);
    await session.ready();
    const asked: [number, number][] = [];
    for (const group of [0, 1, 2]) for (const file of [2, 0, 1]) asked.push([file, group]);
    for (const [file, group] of asked) session.send({ op: 'read', file, group, row: 0, rows: 100 });
    const came: unknown[] = [];
    while (came.length < asked.length) {
      const frame = await session.next('batch');
      came.push([frame?.json.file, frame?.json.group]);
      expect(frame && documentsOf(frame)).toEqual(
        numbered(300)
          .slice(100 * Number(frame?.json.group))
          .slice(0, 100),
      );
    }
    expect(came).toEqual(asked);
  });

  it('end with `done`, which counts the rows', async () => {
    const path = await put('done.jsonl', jsonLines(numbered(10)));
    await using session = new Session(['--dataset', path]);
    await session.ready();
    await session.read(0, 0);
    session.send({ op: 'close' });
    expect((await session.next('done'))?.json).toEqual({ total: 10 });
    expect(await session.exit).toEqual({ code: 0, signal: null });
  });
});
