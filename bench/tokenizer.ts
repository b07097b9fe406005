/**
 * The encoder beside its peers, in one run: `npm run bench:tokenizer [-- OPTIONS] [speed|threads|hard …]` (default: all).
 *
 *   --data english|code|all      which texts, several times if need be; default: each
 *   --only NAME                  which sides, several times if need be; default: each
 *   --rounds N                   processes a side; default: 5
 *   --pattern P --vocab-size N   of the vocabulary, trained on both data sets; default: gpt2, 32000
 *   --tokenizer DIR              another vocabulary
 *   --core N                     the core to pin to; default: 1
 *   --clock wall|cpu             cpu: processor time, for tuning on a machine that others use; default: wall
 *   --json FILE                  every pass of every process
 *
 * speed: one thread, one core, a fresh process each time; its first pass is cold, the later ones warm. Sides take turns,
 * the order turned around each round, so that noise of the machine hits all alike. Ids are compared once.
 * threads: two threads on two cores against one, held to what two spinning threads gain over one.
 * hard: texts without a place to cut.
 *
 * Needs ../shared/data, `taskset`, and the Python environment; peers are installed by pip into a folder of their own.
 * What is made once (texts, vocabulary, packages) stays in the temporary directory.
 */
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import type { Pattern } from '../dist/index.js';
import { type DataSet, documentsOf, flatFile, textFile, trainedTokenizer } from './tokenizer/inputs.js';
import {
  type Outcome,
  ours,
  type Pass,
  type Side,
  sideNames,
  sides,
  spinningGain,
} from './tokenizer/peers.js';

const MB = 1e6;
const datasets: Record<string, { title: string; set: DataSet; bytes: number; passes: number }> = {
  english: { title: 'English web text', set: 'web-text', bytes: 30 * MB, passes: 4 },
  code: { title: 'languages and code', set: 'multilingual-code', bytes: 30 * MB, passes: 4 },
  all: { title: 'all the English web text, one pass', set: 'web-text', bytes: 1000 * MB, passes: 1 },
};

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    data: { type: 'string', multiple: true, default: Object.keys(datasets) },
    only: { type: 'string', multiple: true, default: sideNames },
    rounds: { type: 'string', default: '5' },
    pattern: { type: 'string', default: 'gpt2' },
    'vocab-size': { type: 'string', default: '32000' },
    tokenizer: { type: 'string' },
    core: { type: 'string', default: '1' },
    clock: { type: 'string', default: 'wall' },
    json: { type: 'string' },
  },
});
for (const [option, given, known] of [
  ['--data', values.data, Object.keys(datasets)],
  ['--only', values.only, sideNames],
  ['--clock', [values.clock], ['wall', 'cpu']],
  ['mode', positionals, ['speed', 'threads', 'hard']],
] as const) {
  const unknown = given.find((name) => !(known as readonly string[]).includes(name));
  if (unknown !== undefined) {
    console.error(`${option}: ${unknown} is not one of ${known.join(', ')}`);
    process.exit(2);
  }
}
const rounds = Number(values.rounds);
/** Passes of two threads after those of one: V8 marks its heap once in the first ones, which takes a core from them. */
const LATER = 8;
const wants = (mode: string) => positionals.length === 0 || positionals.includes(mode);
const log: object[] = [];

const print = (line = '') => console.log(line);
const median = (numbers: number[]) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? Number.NaN) + (sorted[sorted.length >> 1] ?? Number.NaN)) / 2;
};
const clock = (pass: Pass | undefined) => (values.clock === 'cpu' ? pass?.cpu : pass?.seconds) ?? Number.NaN;
const rate = ({ bytes, passes }: Outcome, pass: number) => bytes / MB / clock(passes[pass]);
/** MB/s of a process's later passes. */
const warm = (outcome: Outcome) =>
  median(outcome.passes.slice(1).map((_, index) => rate(outcome, index + 1)));
const shown = (number: number) =>
  Number.isNaN(number) ? '-' : number.toFixed(number < 9.95 ? 2 : number < 99.5 ? 1 : 0);

async function speed(name: string, taking: Side[], tokenizer: string): Promise<void> {
  const { title, set, bytes, passes } = datasets[name] as (typeof datasets)[string];
  const documents = await flatFile(set);
  const outcomes = new Map<Side, Outcome[]>(taking.map((side) => [side, []]));
  for (let round = 0; round < rounds; round++) {
    for (const side of round % 2 === 0 ? taking : [...taking].reverse()) {
      const outcome = await side.measure({
        tokenizer,
        documents,
        bytes,
        passes: side.slow ? Math.min(passes, 2) : passes,
        digest: round === 0,
        threads: 1,
        cores: values.core,
      });
      outcomes.get(side)?.push(outcome);
      const { digests: _, ...rest } = outcome;
      log.push({ mode: 'speed', data: name, side: side.name, round, ...rest });
    }
  }

  const first = outcomes.get(taking[0] as Side)?.[0] as Outcome;
  print();
  print(
    `${title}: ${(first.bytes / MB).toFixed(1)} MB in ${first.documents} documents; MB/s` +
      `${values.clock === 'cpu' ? ' of processor time' : ''}, medians of ${rounds} processes`,
  );
  const columns = Array.from({ length: passes }, (_, pass) => (pass === 0 ? 'cold' : `pass ${pass + 1}`));
  row('', 'load s', ...columns, ...(passes > 1 ? ['warm'] : []), 'core', 'ids');
  for (const [side, all] of outcomes) {
    const one = all[0] as Outcome;
    row(
      `${side.name.replace(/-.*/, '')} ${one.version}`,
      median(all.map(({ load }) => load)).toFixed(2),
      ...columns.map((_, pass) => shown(median(all.map((outcome) => rate(outcome, pass))))),
      ...(passes > 1 ? [shown(median(all.map(warm)))] : []),
      // Less than the whole core: something else ran there.
      `${(100 * Math.min(...all.flatMap((outcome) => outcome.passes.map((pass) => pass.cpu / pass.seconds)))).toFixed(0)} %`,
      one === first ? `  ${one.tokens}` : compared(first, one),
    );
  }
  const mine = outcomes.get(ours);
  if (mine === undefined) return;
  for (const [side, all] of outcomes) {
    if (side === ours) continue;
    for (const [what, of] of [
      ['cold', (outcome: Outcome) => rate(outcome, 0)] as const,
      ['warm', warm] as const,
    ]) {
      const ratios = all.map((outcome, round) => of(mine[round] as Outcome) / of(outcome));
      if (ratios.some(Number.isNaN)) continue;
      print(
        `  ours / ${side.name}, ${what}: ${median(ratios).toFixed(2)} (by round ${ratios.map((r) => r.toFixed(2)).join(', ')})`,
      );
    }
  }
}

function row(name: string, ...cells: string[]): void {
  print(`  ${name.padEnd(22)}${cells.map((cell) => cell.padStart(8)).join('')}`);
}

/** Whether the ids are the same, or in which document they first are not. */
function compared(mine: Outcome, theirs: Outcome): string {
  const at = (theirs.digests ?? []).findIndex((digest, index) => digest !== mine.digests?.[index]);
  return at < 0 && theirs.digests?.length === mine.digests?.length
    ? '  same ids'
    : `  OTHER IDS from document ${at}`;
}

async function threads(tokenizer: string): Promise<void> {
  const other = values.core === '0' ? '1' : '0';
  const both = `${values.core},${other}`;
  print();
  print('two threads on two cores against one, and two spinning threads against one:');
  for (const name of values.data.filter((each) => (datasets[each]?.passes ?? 0) > 1)) {
    const { title, set, bytes, passes } = datasets[name] as (typeof datasets)[string];
    const documents = await flatFile(set);
    const gains: Record<'cold' | 'warm' | 'late' | 'spin', number[]> = {
      cold: [],
      warm: [],
      late: [],
      spin: [],
    };
    for (let round = 0; round < rounds; round++) {
      const spin = await spinningGain(both);
      const work = { tokenizer, documents, bytes, passes: passes + LATER, digest: round === 0, cores: both };
      const one = await ours.measure({ ...work, threads: 1 });
      const two = await ours.measure({ ...work, threads: 2 });
      if (round === 0) print(`  ${title}: two threads give${compared(one, two)}`);
      log.push({ mode: 'threads', data: name, round, spin, one: one.passes, two: two.passes });
      gains.spin.push(spin);
      const gain = (from: number, to: number) =>
        median(one.passes.slice(from, to).map(({ seconds }) => seconds)) /
        median(two.passes.slice(from, to).map(({ seconds }) => seconds));
      gains.cold.push(gain(0, 1));
      gains.warm.push(gain(1, passes));
      gains.late.push(gain(passes, passes + LATER));
    }
    const share = (which: keyof typeof gains) =>
      median(gains[which].map((gain, round) => gain / (gains.spin[round] ?? 1))).toFixed(2);
    const list = (which: keyof typeof gains) => gains[which].map((gain) => gain.toFixed(2)).join(', ');
    print(
      `  ${title}: share of what spinning gains: cold ${share('cold')}, pass 2 to ${passes} ${share('warm')}, ` +
        `later ${share('late')} (bar 0.9)`,
    );
    print(
      `    gains by round: cold ${list('cold')}; then ${list('warm')}; later ${list('late')}; spinning ${list('spin')}`,
    );
  }
}

async function hard(taking: Side[], tokenizer: string): Promise<void> {
  const size = 10 * MB;
  const letters = Buffer.alloc(size);
  let stream = createHash('sha256');
  const bytes = Buffer.concat(
    Array.from({ length: Math.ceil(size / 32) }, (_, at) => {
      const block = stream.update(String(at)).digest();
      stream = createHash('sha256').update(block);
      return block;
    }),
  ).subarray(0, size);
  for (let at = 0; at < size; at++) letters[at] = 97 + ((bytes[at] ?? 0) % 26);
  let real = Buffer.alloc(0);
  const parts: Uint8Array[] = [];
  for await (const document of documentsOf(await flatFile('web-text'))) {
    parts.push(
      Buffer.from(
        Buffer.from(document)
          .toString('latin1')
          .replaceAll(/[^A-Za-z]+/g, ''),
        'latin1',
      ),
    );
    if (parts.length % 500 === 0 && (real = Buffer.concat(parts)).length >= size) break;
  }
  const texts: [string, Buffer][] = [
    ['a × 10 MB', Buffer.alloc(size, 'a')],
    ['10 MB of random letters', letters],
    ['10 MB of letters of web text', real.subarray(0, size)],
    ['10 MB of Chinese characters', chinese(bytes)],
    ['10 MB of random bytes', bytes],
  ];
  print();
  print('one text each, a fresh process, first pass; seconds (bar: ours under 2)');
  for (const [name, text] of texts) {
    const documents = await textFile('hard', text);
    const cells: string[] = [];
    for (const side of taking.filter(({ slow }) => !slow)) {
      const work = {
        tokenizer,
        documents,
        bytes: size,
        passes: 1,
        digest: false,
        threads: 1,
        cores: values.core,
      };
      try {
        const outcome = await side.measure({ ...work, limit: 30 });
        log.push({ mode: 'hard', text: name, side: side.name, ...outcome });
        cells.push(`${side.name} ${clock(outcome.passes[0]).toFixed(2)}`);
      } catch {
        cells.push(`${side.name} failed, or more than 30`);
      }
    }
    print(`  ${name.padEnd(30)}${cells.join(', ')}`);
  }
}

/** Common characters in random order: a word that nothing cuts, whose bytes merge early. */
function chinese(bytes: Buffer): Buffer {
  let text = '';
  for (let at = 0; at < 3_333_333; at++)
    text += String.fromCharCode(0x4e00 + (bytes.readUInt16LE(at) % 3000));
  return Buffer.from(text);
}

print(
  `Node ${process.version}, ${cpus()[0]?.model.trim()}, ${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)}, ` +
    `${new Date().toISOString()}`,
);
const tokenizer =
  values.tokenizer ?? (await trainedTokenizer(values.pattern as Pattern, Number(values['vocab-size'])));
print(`vocabulary: ${values.tokenizer ?? `${values.pattern}, ${values['vocab-size']} tokens`}`);
const taking = await sides(values.only, (name, error) =>
  print(
    `without ${name}: ${(error instanceof Error ? error.message : String(error)).trim().split('\n').at(-1)}`,
  ),
);
if (wants('speed')) for (const name of values.data) await speed(name, taking, tokenizer);
if (wants('threads')) await threads(tokenizer);
if (wants('hard')) await hard(taking, tokenizer);
if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(log, null, 1)}\n`);
