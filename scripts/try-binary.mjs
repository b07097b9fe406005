/**
 * Tries a binary on the platform that it was built for, before it is published: it starts, its tokenizer has the ids that
 * it has everywhere, and ten steps of training on the CPU learn something from the stream that they have everywhere.
 *
 *     node scripts/try-binary.mjs artifacts/native/candlewick.linux-x64-gnu.node
 *
 * Needs dist (npm run build:ts) and no Python. With `--print` it says what it measured instead of comparing.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** Of the sources as they are; a change of the tokenizer or of the order of documents changes them. */
const everywhere = {
  tokenizer: '8b85b8954639dbc02cca040b7e718776f9d35f1117645abcf17eae333a14d13e',
  ids: '1996b144f372ce3c',
  stream: 'ecbde4eac44f0a85',
};

const words = ['light', 'Kerze', 'свеча', 'bougie', '蜡烛', '🕯️', "it's", 'x = 3.14', '\t\tdef f(x):\n', 'ﬁ'];
const syllables = ['ka', 'le', 'mi', 'no', 'tu', 'ra', 'sen', 'vol', 'di', 'pe'];
for (let i = 0; i < 200; i++) {
  words.push(`${syllables[i % 10]}${syllables[(i * 7 + 3) % 9]}${syllables[(i >> 3) % 10]}`);
}
const texts = Array.from({ length: 300 }, (_, i) =>
  Array.from({ length: 5 + (i % 40) }, (_, j) => words[(i * 31 + j * j * (1 + (i % 5))) % words.length]).join(
    ' ',
  ),
);

const config = (tokenizer) => ({
  tokenizer: { path: tokenizer },
  model: {
    architecture: 'qwen3',
    hidden_size: 32,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 2,
  },
  data: { sequence_length: 32, shuffle_buffer_size: 50, seed: 1 },
  training: { global_batch_size: 8, max_steps: 10, threads: 2, seed: 1, device: 'cpu' },
  optimizer: { lr: 1e-2 },
  schedule: { name: 'constant', warmup_steps: 0 },
  checkpoint: { every_steps: 10, keep_last: 1 },
  evaluation: { sample_tokens: 0 },
});

async function tryBinary(folder) {
  const { ProcessStreamingCorpus, Tokenizer, Trainer } = await import('../dist/index.js');
  const { native } = await import('../dist/native/index.js');
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  const own = native().version();
  if (own !== version) throw new Error(`it is version ${own}, and package.json says ${version}`);

  const tokenizer = await Tokenizer.train(texts, { vocabSize: 400, pattern: 'o200k' });
  const tokenizerFolder = join(folder, 'tokenizer');
  await tokenizer.save(tokenizerFolder);
  const ids = createHash('sha256');
  for (const text of texts) {
    const encoded = tokenizer.encode(text);
    ids.update(Int32Array.from(encoded));
    if (tokenizer.decode(encoded) !== text) throw new Error(`decoding gives another text than ${text}`);
  }

  const lines = [{ batch: texts }, { done: true, total: texts.length }];
  const documents = join(folder, 'documents.jsonl');
  writeFileSync(documents, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  // Under an emulator, Node itself could not be started again.
  const command = process.platform === 'win32' ? ['cmd', '/c', 'type'] : ['cat'];
  const corpus = new ProcessStreamingCorpus([...command, documents], { epochs: null });
  const trainer = await Trainer.create({
    config: config(tokenizerFolder),
    corpus,
    output: join(folder, 'run'),
  });
  const losses = [];
  let stream = '';
  for await (const event of trainer.run()) {
    if (event.type !== 'step') continue;
    losses.push(event.loss);
    stream = event.stream_hash;
  }
  await trainer.close();
  await corpus.close();
  if (losses.length !== 10) throw new Error(`it took ${losses.length} steps of 10`);
  // At the start the loss is about that of a guess among all tokens, ln 400 = 6.0, and in ten steps of this rate it falls
  // by 1.3. Other processors sum in another order, which moves it by less than 0.01.
  const [first, last] = [losses[0], losses[9]];
  if (!(Math.abs(first - 6) < 0.5 && last < first - 1)) throw new Error(`the losses are ${losses.join(' ')}`);
  return {
    measured: { tokenizer: tokenizer.digest, ids: ids.digest('hex').slice(0, 16), stream },
    losses: [first, last],
  };
}

const file = process.argv.slice(2).find((word) => !word.startsWith('--'));
if (file === undefined || !existsSync(file)) {
  process.stderr.write(
    `usage: node scripts/try-binary.mjs BINARY${file ? `\nerror: ${file} is not there` : ''}\n`,
  );
  process.exit(2);
}
process.env.CANDLEWICK_NATIVE = resolve(file);
const folder = mkdtempSync(join(tmpdir(), 'candlewick-try-'));
try {
  const started = performance.now();
  const { measured, losses } = await tryBinary(folder);
  if (process.argv.includes('--print')) {
    process.stdout.write(`${JSON.stringify(measured, null, 2)}\n`);
  } else {
    for (const [what, value] of Object.entries(everywhere)) {
      if (measured[what] !== value)
        throw new Error(`${what} is ${measured[what]} here and ${value} elsewhere`);
    }
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  const [first, last] = losses.map((loss) => loss.toFixed(3));
  process.stdout.write(
    `${file}: starts, has the same ids, learns (loss ${first} to ${last} in 10 steps), ${seconds} s\n`,
  );
} catch (error) {
  process.stderr.write(`error: ${file}: ${error.stack ?? error}\n`);
  process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
