/**
 * Whether encoding without end stays within its memory: `node bench/tokenizer/memory.mjs [MEGABYTES]` (default: 1000)
 * encodes texts full of words never seen before and ends with 1 when peaks grow. Resident memory is read from /proc.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '../../dist/index.js';

/** Peak over Node with its tokenizer loaded, MB: word caches of two threads, a batch of text and its ids. */
const BOUND = 200;
/** The peak of the second half over that of the first. */
const GROWTH = 1.1;

const [megabytes = '1000', directory] = process.argv.slice(2);

let drawn = 7;
const draw = (below) => {
  drawn = (Math.imul(drawn, 1_664_525) + 1_013_904_223) >>> 0;
  return (drawn >>> 8) % below;
};

/** About 8 MB of made-up words in three scripts, some of them hundreds of letters long. */
function pool() {
  const starts = [0x61, 0x430, 0x4e00];
  const words = Array.from({ length: 20_000 }, (_, at) => {
    const start = starts[at % 10 === 0 ? 1 : at % 13 === 0 ? 2 : 0];
    const length = at % 997 === 0 ? 300 : 1 + draw(9);
    return String.fromCharCode(...Array.from({ length }, () => start + draw(26)));
  });
  let text = '';
  // Squaring favours the first words, as texts do.
  for (let at = 0; at < 1_000_000; at++) text += `${words[Math.floor((draw(1000) * draw(1000)) / 50)]} `;
  return Buffer.from(text);
}

const status = (field) =>
  Number(new RegExp(`${field}:\\s+(\\d+)`).exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1000;

if (directory === undefined) {
  // Training has a process of its own, so that its memory is not counted.
  const made = mkdtempSync(join(tmpdir(), 'candlewick-memory-'));
  try {
    const tokenizer = await Tokenizer.train([pool()], { vocabSize: 8000 });
    await tokenizer.save(made);
    execFileSync(process.execPath, [fileURLToPath(import.meta.url), megabytes, made], { stdio: 'inherit' });
  } catch (error) {
    if (error.status === undefined) throw error;
    process.exitCode = 1;
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
} else {
  const source = pool();
  const tokenizer = await Tokenizer.fromFile(directory);
  const before = status('VmRSS');
  const total = Number(megabytes) * 1e6;
  let [bytes, tokens, firstHalf] = [0, 0, 0];
  const began = performance.now();
  while (bytes < total) {
    const texts = Array.from({ length: 500 }, () => {
      const at = draw(source.length - 8000);
      const text = Uint8Array.prototype.slice.call(source, at, at + 8000);
      for (let i = draw(40); i < text.length; i += 1 + draw(80)) text[i] = 97 + draw(26);
      return text;
    });
    for (const ids of await tokenizer.encodeBatch(texts, { threads: 2 })) tokens += ids.length;
    bytes += 500 * 8000;
    if (firstHalf === 0 && bytes >= total / 2) {
      firstHalf = status('VmHWM');
      writeFileSync('/proc/self/clear_refs', '5');
    }
  }
  const secondHalf = status('VmHWM');
  const seconds = (performance.now() - began) / 1000;
  console.log(
    `${(bytes / 1e6).toFixed(0)} MB into ${tokens} ids in ${seconds.toFixed(0)} s; ` +
      `peak resident ${firstHalf.toFixed(0)} and ${secondHalf.toFixed(0)} MB in the halves, ${before.toFixed(0)} before`,
  );
  const grown = secondHalf / firstHalf;
  const over = Math.max(firstHalf, secondHalf) - before;
  if (!(grown <= GROWTH) || !(over <= BOUND)) {
    console.log(
      `it grew ${grown.toFixed(2)} times (${GROWTH} allowed), ${over.toFixed(0)} MB over ${BOUND} allowed`,
    );
    process.exitCode = 1;
  }
}
