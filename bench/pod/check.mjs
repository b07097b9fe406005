/**
 * What a user does on a machine with a GPU, through the commands: a tokenizer, a run, the same run killed and gone on with, text
 * from it; `npm run build:cuda -- --pod` packs it with Node and the packages, for machines that have neither.
 *
 *   ./check.sh            a model of 83 million parameters, 60 steps
 *   ./check.sh --tiny     one that an emulated GPU can train, 12 steps
 *
 * A run that was killed has to end with the losses, norms and weights of the one that was not, bit for bit. The last line is
 * `N passed, N failed`.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const packages = process.env.CANDLEWICK_POD_PACKAGE ?? join(here, 'node_modules/candlewick');
const tiny = process.argv.includes('--tiny');
const { steps, every, model, data, training } = tiny
  ? {
      steps: 12,
      every: 4,
      model: 'hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1, num_attention_heads: 1',
      data: 'sequence_length: 32, shuffle_buffer_size: 50',
      training: 'global_batch_size: 2, threads: 1',
    }
  : {
      steps: 60,
      every: 20,
      model:
        'hidden_size: 768, intermediate_size: 2304, num_hidden_layers: 12, num_attention_heads: 12, num_key_value_heads: 4',
      data: 'sequence_length: 1024',
      training: 'global_batch_size: 32',
    };
const config = `model: {architecture: qwen3, tie_word_embeddings: true, ${model}}
data: {dataset: made-up, ${data}}
training: {max_steps: ${steps}, device: cuda, ${training}}
checkpoint: {every_steps: ${every}}
evaluation: {sample_tokens: 0}
`;
const folder = mkdtempSync(join(tmpdir(), 'candlewick-pod-'));
const env = {
  ...process.env,
  CANDLEWICK_PYTHON: join(here, 'streamer.mjs'),
  // The stand-in for Python asks for `node`.
  PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH ?? ''}`,
};

/** Runs a command of the package; `onEvent` gets each line of its JSON. */
async function command(name, args, onEvent) {
  const child = spawn(process.execPath, [join(packages, 'bin', `${name}.js`), ...args], { cwd: folder, env });
  const said = [];
  const keep = (line) => {
    said.push(line);
    process.stdout.write(`    ${line}\n`);
  };
  createInterface({ input: child.stderr }).on('line', keep);
  createInterface({ input: child.stdout }).on('line', (line) => {
    if (onEvent === undefined) return keep(line);
    // What a killed process wrote last may be half a line.
    if (!child.killed) onEvent(JSON.parse(line), child);
  });
  const [code, signal] = await once(child, 'close');
  return { code, signal, said: said.join('\n') };
}

let passed = 0;
let failed = 0;
async function check(what, body) {
  process.stdout.write(`${what}\n`);
  try {
    await body();
    passed++;
    process.stdout.write('  ok\n');
  } catch (error) {
    failed++;
    process.stdout.write(`  FAILED: ${error.message}\n`);
  }
}
function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

const at = (...parts) => join(folder, ...parts);
const rows = (run) =>
  readFileSync(at(run, 'metrics.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))
    .filter(({ loss }) => loss !== undefined);
const weights = (run) => {
  const file = at(run, 'checkpoints', `step-${String(steps).padStart(8, '0')}`, 'model.safetensors');
  return createHash('sha256').update(readFileSync(file)).digest('hex');
};
const middle = (values) => values.sort((a, b) => a - b)[values.length >> 1];

writeFileSync(at('pod.yaml'), config);
const options = (run) => [
  '--config',
  'pod.yaml',
  '--tokenizer',
  'tokenizer',
  '--output',
  run,
  '--device',
  'cuda',
];
const ended = ({ code, signal, said }) => expect(code === 0, `exit ${code ?? signal}\n${said}`);

await check('a tokenizer from the stream', async () => {
  const source = ['--dataset', 'made-up', '--max-samples', '2000'];
  const wanted = ['--vocab-size', '400', '--output', 'tokenizer', '--quiet'];
  ended(await command('train-tokenizer-streaming', [...source, ...wanted]));
});
await check(`${steps} steps on the GPU`, async () => {
  const run = await command('train-streaming', options('whole'));
  ended(run);
  expect(/device\s+cuda/.test(run.said), 'it does not say that it trains on the GPU');
  const all = rows('whole');
  expect(all.length === steps, `${all.length} rows of metrics.jsonl`);
  expect(all.at(-1).loss < all[0].loss, `loss ${all[0].loss}, at the end ${all.at(-1).loss}`);
  const late = all.slice(all.length >> 1);
  const rate = middle(late.map((row) => row.tokens_per_second));
  const mfu = late.every((row) => typeof row.mfu === 'number')
    ? `, MFU ${(100 * middle(late.map((row) => row.mfu))).toFixed(1)} %`
    : '';
  process.stdout.write(
    `  ${rate.toFixed(0)} tokens a second${mfu}; loss ${all[0].loss} to ${all.at(-1).loss}\n`,
  );
});
await check('the same, killed once a checkpoint is written and gone on with', async () => {
  let step = 0;
  const killed = await command('train-streaming', [...options('struck'), '--json'], (event, child) => {
    if (event.type === 'step') step = event.step;
    if (event.type === 'checkpoint' && event.step > 0) child.kill('SIGKILL');
  });
  expect(killed.signal === 'SIGKILL', `it ended by itself: exit ${killed.code}, after step ${step}`);
  const again = await command('train-streaming', options('struck'));
  ended(again);
  expect(/starts\s.*after step/.test(again.said), 'it did not go on from a checkpoint');
  const numbers = (run) =>
    JSON.stringify(rows(run).map(({ step, loss, grad_norm }) => [step, loss, grad_norm]));
  expect(
    numbers('struck') === numbers('whole'),
    'losses or norms differ from those of the run that was not killed',
  );
  expect(
    weights('struck') === weights('whole'),
    'the weights differ from those of the run that was not killed',
  );
});
// An emulated GPU has candlewick's kernels and not candle's, which write texts.
const writer = tiny ? 'cpu' : 'cuda';
await check(`text from it, on ${writer}`, async () => {
  const text = async () => {
    const args = [
      'generate',
      'struck',
      '--prompt',
      'a candle',
      '--max-tokens',
      '24',
      '--temperature',
      '0',
      '--device',
      writer,
    ];
    const result = await command('candlewick', args);
    ended(result);
    return result.said;
  };
  expect((await text()) === (await text()), 'twice the same question, and not the same text');
});
rmSync(folder, { recursive: true, force: true });
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed > 0 ? 1 : 0;
