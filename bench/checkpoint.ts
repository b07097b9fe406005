/**
 * What saving costs the steps: the quickstart's model with a checkpoint each 50 steps beside the same without, in turns.
 *
 *     node --import ./scripts/typescript.mjs bench/checkpoint.ts [--steps 101] [--rounds 2]
 *
 * Wall time is that between the first and the last step; processor time is the process's over the same stretch, which
 * other programs on the machine disturb less.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { parse } from 'yaml';
import { ProcessStreamingCorpus } from '../src/corpus/index.js';
import { Trainer } from '../src/run/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';

const { values } = parseArgs({
  options: { steps: { type: 'string', default: '101' }, rounds: { type: 'string', default: '2' } },
});
const [steps, rounds] = [Number(values.steps), Number(values.rounds)];
const every = 50;

const folder = await mkdtemp(join(tmpdir(), 'candlewick-checkpoint-'));
/** Text that every checkout has: its own sources. */
async function sources(): Promise<string[]> {
  const names = (await readdir('.', { recursive: true })).filter(
    (name) => /^(src|crates|__test__|bench)\//.test(name) && /\.(ts|rs|md)$/.test(name),
  );
  return Promise.all(names.sort().map((name) => readFile(name, 'utf8')));
}
const texts = await sources();
const documents = join(folder, 'documents.jsonl');
const lines = [...texts.map((text) => ({ batch: [text] })), { done: true, total: texts.length }];
await writeFile(documents, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
const quickstart = parse(await readFile('configs/quickstart.yaml', 'utf8')) as Record<string, object>;
const tokenizer = join(folder, 'tokenizer');
await (await Tokenizer.train(texts, { vocabSize: 4096 })).save(tokenizer);

interface Outcome {
  wall: number;
  processor: number;
  saves: { bytes: number; seconds: number; held: number }[];
}

async function run(name: string, every_steps: number | null): Promise<Outcome> {
  const corpus = new ProcessStreamingCorpus(['cat', documents], { epochs: null });
  const trainer = await Trainer.create({
    config: {
      ...quickstart,
      tokenizer: { path: tokenizer },
      data: { sequence_length: 256, shuffle_buffer_size: 1000 },
      training: { ...quickstart['training'], max_steps: steps },
      checkpoint: { every_steps },
      evaluation: { documents: 0, sample_tokens: 0 },
    },
    corpus,
    output: join(folder, name),
  });
  const outcome: Outcome = { wall: 0, processor: 0, saves: [] };
  let began = { wall: 0, cpu: process.cpuUsage() };
  for await (const event of trainer.run()) {
    if (event.type === 'step' && event.step === 1)
      began = { wall: performance.now(), cpu: process.cpuUsage() };
    if (event.type === 'step' && event.step === steps) {
      outcome.wall = (performance.now() - began.wall) / 1000;
      const { user, system } = process.cpuUsage(began.cpu);
      outcome.processor = (user + system) / 1e6;
    }
    if (event.type === 'checkpoint' && event.step % every === 0 && event.step > 0)
      outcome.saves.push({ bytes: event.bytes, seconds: event.seconds, held: event.held_seconds });
  }
  await trainer.close();
  await corpus.close();
  return outcome;
}

const sum = (numbers: number[]) => numbers.reduce((a, b) => a + b, 0);
const [saving, plain]: [Outcome[], Outcome[]] = [[], []];
try {
  await run('warm-up', null);
  for (let round = 0; round < rounds; round++) {
    // Who goes first changes, so that a machine that grows slower favours nobody.
    const order = round % 2 === 0 ? [true, false] : [false, true];
    for (const saves of order) {
      const outcome = await run(`${round}-${saves}`, saves ? every : null);
      (saves ? saving : plain).push(outcome);
      console.log(
        `${saves ? `a save each ${every} steps` : 'no save'}: ${outcome.wall.toFixed(2)} s, ` +
          `${outcome.processor.toFixed(2)} s of processors` +
          outcome.saves
            .map(
              ({ bytes, seconds, held }) =>
                `; saved ${(bytes / 1e6).toFixed(1)} MB in ${(1000 * seconds).toFixed(0)} ms, ` +
                `steps stood still for ${(1000 * held).toFixed(1)} ms`,
            )
            .join(''),
      );
    }
  }
  for (const key of ['wall', 'processor'] as const) {
    const [a, b] = [saving, plain].map((outcomes) => sum(outcomes.map((outcome) => outcome[key])));
    console.log(`${key}: saving costs ${((100 * ((a ?? 0) - (b ?? 0))) / (b ?? 1)).toFixed(2)} %`);
  }
  const held = sum(saving.flatMap(({ saves }) => saves.map((save) => save.held)));
  const wall = sum(saving.map((outcome) => outcome.wall));
  console.log(`steps stood still for ${((100 * held) / wall).toFixed(3)} % of the time`);
} finally {
  await rm(folder, { recursive: true, force: true });
}
