/**
 * A training step on the CPU beside PyTorch's and candle's: `npm run bench:step [-- OPTIONS]`.
 *
 *   --size small|large   10M parameters with 16 × 256 tokens, 30M with 8 × 512; several times if need be; default: both
 *   --only NAME          candlewick, eager, compiled, candle; several times if need be; default: all
 *   --rounds N           rounds, in which the sides take turns; default: 5
 *   --steps N            steps a side and round; default: 3 small, 1 large
 *   --threads N          default: 2
 *   --json FILE          every step of every side
 *   --built              the programs are built already: cargo is not asked
 *
 * Every side trains the same shape (Qwen3, tied, vocabulary of 8,192) in f32 with AdamW and clipping on random tokens,
 * in a process of its own that is warm and waits for its turn. What a step's products take alone, ours and the `gemm`
 * crate's, is measured beside it, and with it the share of the step that is products.
 *
 * PyTorch is wanted: CANDLEWICK_TORCH_PYTHON names a Python that has it (`python3 -m venv torch && torch/bin/pip install
 * torch numpy`). On a machine that others use, CANDLEWICK_BENCH_QUIET names a command that keeps it quiet while the
 * command given to it runs; each turn is taken under it.
 */
import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import {
  type Answer,
  type Products,
  quietly,
  type Side,
  type SideName,
  type Spec,
  sideNames,
  start,
  startProducts,
} from './step/sides.js';

const model = {
  architecture: 'qwen3',
  head_dim: 64,
  vocab_size: 8192,
  tie_word_embeddings: true,
  max_position_embeddings: 512,
};
const sizes: Record<string, { spec: Spec; steps: number }> = {
  small: {
    steps: 3,
    spec: {
      rows: 16,
      length: 256,
      model: {
        ...model,
        hidden_size: 256,
        intermediate_size: 1024,
        num_hidden_layers: 8,
        num_attention_heads: 4,
        num_key_value_heads: 2,
      },
    },
  },
  large: {
    steps: 1,
    spec: {
      rows: 8,
      length: 512,
      model: {
        ...model,
        hidden_size: 512,
        intermediate_size: 1536,
        num_hidden_layers: 8,
        num_attention_heads: 8,
        num_key_value_heads: 4,
      },
    },
  },
};

const { values } = parseArgs({
  options: {
    size: { type: 'string', multiple: true, default: Object.keys(sizes) },
    only: { type: 'string', multiple: true, default: [...sideNames] },
    rounds: { type: 'string', default: '5' },
    steps: { type: 'string' },
    threads: { type: 'string', default: '2' },
    json: { type: 'string' },
    built: { type: 'boolean', default: false },
  },
});
for (const [option, given, known] of [
  ['--size', values.size, Object.keys(sizes)],
  ['--only', values.only, sideNames],
] as const) {
  const unknown = given.find((name) => !(known as readonly string[]).includes(name));
  if (unknown !== undefined) usage(`${option}: ${unknown} is not one of ${known.join(', ')}`);
}
const wanted = sideNames.filter((name) => values.only.includes(name));
const threads = Number(values.threads);
const gate = (process.env.CANDLEWICK_BENCH_QUIET ?? '').split(' ').filter(Boolean);
const torchPython = process.env.CANDLEWICK_TORCH_PYTHON ?? '';
if (torchPython === '' && wanted.some((name) => name === 'eager' || name === 'compiled')) {
  usage(
    'PyTorch is wanted: python3 -m venv torch && torch/bin/pip install torch numpy, then ' +
      'CANDLEWICK_TORCH_PYTHON=torch/bin/python; or --only candlewick --only candle',
  );
}

function usage(message: string): never {
  console.error(message);
  process.exit(2);
}

const print = (line = '') => console.log(line);
const median = (numbers: number[]) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? Number.NaN) + (sorted[sorted.length >> 1] ?? Number.NaN)) / 2;
};
const log: object[] = [];

/** Multiplications and additions of a step's products; attention's, half of them hidden by the mask, are not counted. */
const floatingOperations = ({ products }: Products) =>
  products.reduce((sum, { dimensions: [m, n, k], times }) => sum + 2 * m * n * k * times, 0);

async function measure(name: string): Promise<void> {
  const { spec, steps: usual } = sizes[name] as (typeof sizes)[string];
  const steps = values.steps === undefined ? usual : Number(values.steps);
  const sides: Side[] = [];
  const answers = new Map<Side, Answer[]>();
  for (const side of wanted) {
    sides.push(await start(side, spec, threads, torchPython));
  }
  const products = await startProducts(spec, threads);
  const productSeconds: [number[], number[]][][] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const side of round % 2 === 0 ? sides : [...sides].reverse()) {
      const answer = await quietly(gate, () => side.ask(steps));
      answers.set(side, [...(answers.get(side) ?? []), answer]);
      log.push({ size: name, side: side.name, round, ...answer });
    }
    const { seconds } = await quietly(gate, () => products.ask<{ seconds: [number[], number[]][] }>(3));
    productSeconds.push(seconds);
    log.push({ size: name, side: 'products', round, seconds });
  }
  report(name, spec, sides, answers, products.hello as unknown as Products, productSeconds);
  for (const side of [...sides, products]) await side.end();
}

function report(
  name: string,
  { rows, length }: Spec,
  sides: Side[],
  answers: Map<Side, Answer[]>,
  products: Products,
  productSeconds: [number[], number[]][][],
): void {
  const tokens = rows * length;
  const medians = new Map<SideName, number>();
  const first = sides[0]?.hello as { parameters?: number } | undefined;
  print();
  print(
    `${name}: ${((first?.parameters ?? 0) / 1e6).toFixed(1)}M parameters, ${rows} × ${length} tokens, f32, ` +
      `${threads} threads of ${cpus()[0]?.model.trim()}`,
  );
  print(`${''.padEnd(12)}${'step s'.padStart(22)}${'tokens/s'.padStart(10)}${'peak MB'.padStart(9)}`);
  for (const side of sides) {
    const seconds = (answers.get(side) ?? []).flatMap((answer) => answer.seconds);
    const peak = Math.max(...(answers.get(side) ?? []).map((answer) => answer.peak_bytes ?? Number.NaN));
    const middle = median(seconds);
    medians.set(side.name as SideName, middle);
    const spread = `${middle.toFixed(3)} (${Math.min(...seconds).toFixed(3)}–${Math.max(...seconds).toFixed(3)})`;
    print(
      `${side.name.padEnd(12)}${spread.padStart(22)}${(tokens / middle).toFixed(0).padStart(10)}` +
        `${(peak / 1e6).toFixed(0).padStart(9)}  ${side.hello.version}`,
    );
  }
  const ours = medians.get('candlewick');
  for (const [side, bar] of [
    ['eager', 1.5],
    ['compiled', 1.2],
    ['candle', undefined],
  ] as const) {
    const theirs = medians.get(side);
    if (ours === undefined || theirs === undefined) continue;
    print(`ours / ${side}: ${(theirs / ours).toFixed(2)}${bar === undefined ? '' : ` (bar: ${bar})`}`);
  }

  const alone = ([0, 1] as const).map((side) =>
    products.products.reduce(
      (sum, { times }, at) =>
        sum + times * median(productSeconds.flatMap((round) => round[at]?.[side] ?? [])),
      0,
    ),
  ) as [number, number];
  const operations = floatingOperations(products);
  print(
    `products of a step alone: ours ${alone[0].toFixed(3)} s, ${(operations / alone[0] / 1e9).toFixed(0)} GFLOP/s; ` +
      `the gemm crate ${alone[1].toFixed(3)} s, ${(operations / alone[1] / 1e9).toFixed(0)} GFLOP/s` +
      (ours === undefined ? '' : `; ${((100 * alone[0]) / ours).toFixed(0)} % of our step`),
  );
  for (const [at, { name: product, dimensions, times }] of products.products.entries()) {
    const [m, n, k] = dimensions;
    const rates = ([0, 1] as const).map((side) => {
      const seconds = median(productSeconds.flatMap((round) => round[at]?.[side] ?? []));
      return ((2 * m * n * k) / seconds / 1e9).toFixed(0).padStart(5);
    });
    print(
      `  ${product.padEnd(14)}${`${m}×${n}×${k}`.padEnd(16)}${String(times).padStart(4)} times${rates.join('')}`,
    );
  }
}

const cargo = ['build', '--locked', '--release'];
const builds = values.built
  ? []
  : ([
      ['candlewick-train', ['step_side', 'step_candle']],
      ['candlewick-model', ['products']],
    ] as const);
for (const [crate, examples] of builds) {
  const args = [...cargo, '-p', crate, ...examples.flatMap((example) => ['--example', example])];
  const { status } = spawnSync('cargo', args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status !== 0) process.exit(1);
}
for (const size of values.size) await measure(size);
if (values.json !== undefined) {
  await writeFile(values.json, `${log.map((entry) => JSON.stringify(entry)).join('\n')}\n`);
}
