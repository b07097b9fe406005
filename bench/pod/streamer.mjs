#!/usr/bin/env node
/**
 * Documents for `check.mjs` where no Python with `datasets` is: what `CANDLEWICK_PYTHON` names there. It is started as Python
 * would be, with the path of streamer.py, and speaks the streamer's protocol, version 1 (ARCHITECTURE.md).
 *
 * Four files of 5,000 rows in groups of 1,000, made up of syllables by a hash of the row's place: always the same ones.
 */
import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';

const files = ['made-0.txt', 'made-1.txt', 'made-2.txt', 'made-3.txt'];
const groups = 5;
const groupRows = 1000;
const kinds = { ready: 2, file: 3, batch: 4, heartbeat: 6, done: 8 };
const syllables = 'can dle wick wax light burn ing er on a the to of and in re de is'.split(' ');

// What it stands in for is asked which Python it is, before it is started.
if (process.argv[2] === '-c' && process.argv[3]?.includes('sys.version_info')) {
  process.stdout.write('python 3.12.0');
  process.exit(0);
}
if (!(process.argv[2] ?? '').endsWith('streamer.py')) {
  process.stderr.write('this is no Python: it only stands in for the streamer\n');
  process.exit(1);
}
const batchOption = process.argv.indexOf('--batch-size');
const batchSize = batchOption < 0 ? groupRows : Number(process.argv[batchOption + 1]);

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

function crc32c(bytes, crc) {
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff];
  return crc;
}

let sequence = 0;
function send(kind, json, binary = Buffer.alloc(0)) {
  const text = Buffer.from(JSON.stringify(json));
  const header = Buffer.alloc(28);
  header.write('CWK1', 'latin1');
  header.writeUInt8(1, 4);
  header.writeUInt8(kinds[kind], 5);
  header.writeUInt32LE(sequence++, 8);
  header.writeUInt32LE(text.length, 12);
  header.writeBigUInt64LE(BigInt(binary.length), 16);
  const body = Buffer.concat([text, binary]);
  header.writeUInt32LE((crc32c(body, crc32c(header.subarray(0, 24), 0xffffffff)) ^ 0xffffffff) >>> 0, 24);
  const frame = Buffer.concat([header, body]);
  for (let at = 0; at < frame.length; ) at += writeSync(3, frame, at);
}

/** A row's text: 30 to 150 words, each of one to three syllables, by a hash of what came before. */
function textOf(file, row) {
  let state = Math.imul(file * 5003 + row + 1, 0x9e3779b1) >>> 0;
  const next = (n) => {
    state = Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) >>> 0;
    state = (state ^ (state >>> 12)) >>> 0;
    return state % n;
  };
  const word = () => Array.from({ length: 1 + next(3) }, () => syllables[next(syllables.length)]).join('');
  return Array.from({ length: 30 + next(120) }, word).join(' ');
}

let rowsSent = 0;
function sendGroup({ id, file, group, row, rows }) {
  const end = Math.min(groupRows, row + rows);
  for (let first = row; first < end; first += batchSize) {
    const last = Math.min(end, first + batchSize);
    const texts = [];
    for (let at = first; at < last; at++) texts.push(Buffer.from(textOf(file, group * groupRows + at)));
    const offsets = Buffer.alloc(4 * (texts.length + 1));
    let offset = 0;
    texts.forEach((text, at) => {
      offset += text.length;
      offsets.writeUInt32LE(offset, 4 * (at + 1));
    });
    rowsSent += texts.length;
    const ends = last === groupRows;
    const place = { id, file, group, row: first, rows: texts.length, end: ends };
    send('batch', { ...place, eof: ends && group === groups - 1 }, Buffer.concat([offsets, ...texts]));
  }
}

const beat = setInterval(
  () => send('heartbeat', { time: Date.now() / 1000, waiting: 0, fetched: rowsSent }),
  5000,
);
send('ready', {
  dataset: 'made up',
  config_name: null,
  split: 'train',
  revision: null,
  text_column: 'text',
  text_template: null,
  columns: ['text'],
  files,
  row_groups: true,
  total_rows: files.length * groups * groupRows,
  versions: {},
});
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.op === 'file') {
    send('file', { id: request.id, file: request.file, row_groups: Array(groups).fill(groupRows) });
  } else if (request.op === 'read') {
    sendGroup(request);
  } else if (request.op === 'close') {
    send('done', { total: rowsSent });
    break;
  }
}
clearInterval(beat);
