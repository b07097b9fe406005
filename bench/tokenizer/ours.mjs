/**
 * Our side of bench/tokenizer.ts, a process of its own: `node ours.mjs '{"tokenizer": …}'` prints a line of JSON. Plain
 * JavaScript, so that what strips types is not in its memory.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '../../dist/index.js';

const {
  tokenizer: directory,
  documents,
  bytes,
  passes,
  threads,
  digest,
} = JSON.parse(process.argv[2] ?? '{}');

const texts = [];
const file = readFileSync(documents);
let total = 0;
for (let at = 0; at < file.length && total < bytes; ) {
  const length = file.readUInt32LE(at);
  // A buffer of its own each, as a program that gets them one by one has.
  texts.push(new Uint8Array(file.subarray(at + 4, at + 4 + length)));
  total += length;
  at += 4 + length;
}

const began = performance.now();
const tokenizer = await Tokenizer.fromFile(directory);
const load = (performance.now() - began) / 1000;

const timed = [];
let ids = [];
for (let pass = 0; pass < passes; pass++) {
  const before = process.cpuUsage();
  const start = performance.now();
  ids = await tokenizer.encodeBatch(texts, { threads, reuse: ids });
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(before);
  timed.push({ seconds, cpu: (user + system) / 1e6 });
}

const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'));
const outcome = { version, bytes: total, documents: texts.length, load, passes: timed };
outcome.tokens = ids.reduce((sum, document) => sum + document.length, 0);
if (digest) {
  outcome.digests = ids.map((document) => {
    const view = Buffer.from(document.buffer, document.byteOffset, document.byteLength);
    return createHash('sha1').update(view).digest('hex').slice(0, 8);
  });
}
process.stdout.write(`${JSON.stringify(outcome)}\n`);
