/** Our side of bench/tokenizer-training.ts: `node ours.mjs DOCUMENTS VOCAB_SIZE MERGES` prints a line of JSON. */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from '../../dist/index.js';

const [documents = '', vocabSize, merges = ''] = process.argv.slice(2);
const file = readFileSync(documents);
const texts = [];
for (let at = 0; at < file.length; ) {
  const end = at + 4 + file.readUInt32LE(at);
  // A buffer of its own each, as a program that gets them one by one has.
  texts.push(new Uint8Array(file.subarray(at + 4, end)));
  at = end;
}

const began = performance.now();
const tokenizer = await Tokenizer.train(texts, { vocabSize: Number(vocabSize) });
const seconds = (performance.now() - began) / 1000;

const folder = await mkdtemp(join(tmpdir(), 'candlewick-bench-merges-'));
await tokenizer.save(folder);
const { model } = JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8'));
await rm(folder, { recursive: true });
// In hexadecimal, as the peers write them: no spelling stands between.
const bytesOf = new Map();
let other = 0;
for (let byte = 0; byte < 256; byte++) {
  const printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  bytesOf.set(String.fromCodePoint(printable ? byte : 256 + other++), byte);
}
const hex = (token) => Buffer.from([...token].map((char) => bytesOf.get(char))).toString('hex');
writeFileSync(merges, model.merges.map(([a, b]) => `${hex(a)} ${hex(b)}\n`).join(''));
console.log(JSON.stringify({ seconds, merges: model.merges.length, peak: process.resourceUsage().maxRSS }));
