/** What is made of a program's documents: batches, tokenizers, runs. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus, ProcessStreamingCorpus } from '../src/corpus/index.js';
import { type LoaderBatch, type LoaderOptions, StreamingTextDataLoader } from '../src/data/index.js';
import { Trainer } from '../src/run/index.js';
import { Tokenizer } from '../src/tokenizer/index.js';
import { python } from './support/python.js';

let folder: string;
let file: string;
let tokenizer: Tokenizer;
const documents = Array.from({ length: 3300 }, (_, i) => `document ${i}: ${'some words, é '.repeat(i % 17)}`);

/** Writes the lines of a file of JSON lines from a position on, logs where it began, dies at each of DEATHS in turn. */
const program = `
import json, os, signal, sys
path, log, positions = sys.argv[1:]
deaths, died = json.loads(os.environ.get("DEATHS", "[]")), os.environ.get("DIED")
at = json.loads(os.environ.get("CANDLEWICK_POSITION", "0"))
with open(log, "a") as file: print(at, file=file)
rows = [json.loads(line)["text"] for line in open(path, encoding="utf-8")]
total = len(rows) - at
while at < len(rows):
    texts = rows[at:at + 50]
    at += len(texts)
    if deaths:
        count = os.path.getsize(died) if os.path.exists(died) else 0
        if count < len(deaths) and at > deaths[count]:
            with open(died, "a") as file: file.write("x")
            os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"batch": texts, **({"position": at} if positions == "yes" else {})}), flush=True)
print(json.dumps({"done": True, "total": total}), flush=True)
`;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-program-'));
  file = join(folder, 'rows.jsonl');
  await writeFile(file, documents.map((text) => `${JSON.stringify({ text })}\n`).join(''));
  await using corpus = corpusOf('yes');
  tokenizer = await Tokenizer.train(corpus, { vocabSize: 400 });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

function corpusOf(positions: 'yes' | 'no', epochs = 1, deaths: Record<string, string> = {}) {
  const command = [python, '-c', program, file, join(folder, `starts-${positions}`), positions];
  return new ProcessStreamingCorpus(command, {
    epochs,
    restartDelay: 0.001,
    env: { ...process.env, ...deaths },
  });
}

const options = { batchSize: 4, sequenceLength: 64, shuffleBufferSize: 700, seed: 5 };

async function batchesOf(
  corpus: ProcessStreamingCorpus | HuggingFaceStreamingCorpus,
  more: Partial<LoaderOptions> = {},
): Promise<LoaderBatch[]> {
  await using loader = new StreamingTextDataLoader(corpus, tokenizer, { ...options, ...more });
  const batches: LoaderBatch[] = [];
  for await (const batch of loader) batches.push(batch);
  return batches;
}

const isSame = (a: LoaderBatch | undefined, b: LoaderBatch | undefined) =>
  a !== undefined &&
  b !== undefined &&
  a.hash === b.hash &&
  a.state === b.state &&
  Buffer.compare(Buffer.from(a.inputs.buffer), Buffer.from(b.inputs.buffer)) === 0 &&
  Buffer.compare(Buffer.from(a.targets.buffer), Buffer.from(b.targets.buffer)) === 0;

describe('the loader over a program', () => {
  it('gives the tokens that a file of the same documents gives', async () => {
    await using plain = new HuggingFaceStreamingCorpus(file, { python, epochs: 2 });
    await using corpus = corpusOf('yes', 2);
    const [expected, found] = [await batchesOf(plain), await batchesOf(corpus)];
    expect(found.length).toBe(expected.length);
    expect(found.map(({ hash }) => hash)).toEqual(expected.map(({ hash }) => hash));
  });

  it.each(['yes', 'no'] as const)(
    'gives bitwise the same after kill -9 of the program and from any state (positions: %s)',
    async (positions) => {
      await using reference = corpusOf(positions, 2);
      const whole = await batchesOf(reference);
      await using corpus = corpusOf(positions, 2);
      // Three times in the first pass, twice in the second.
      const died = join(folder, `died-${positions}`);
      await using mortal = corpusOf(positions, 2, { DEATHS: '[500,1250,3250,500,2500]', DIED: died });
      const killed = await batchesOf(mortal);
      expect(await readFile(died, 'utf8')).toBe('xxxxx');
      expect(killed.every((batch, i) => isSame(batch, whole[i]))).toBe(true);
      expect(killed.length).toBe(whole.length);
      for (let at = 3; at < whole.length; at += Math.ceil(whole.length / 9)) {
        const rest = await batchesOf(corpus, { state: whole[at]?.state });
        expect(rest.length).toBe(whole.length - at - 1);
        expect(rest.every((batch, i) => isSame(batch, whole[at + 1 + i]))).toBe(true);
      }
    },
    120_000,
  );

  it('starts the program at the last batch before the window', async () => {
    await using corpus = corpusOf('yes');
    const whole = await batchesOf(corpus);
    // A window is 700 documents: this one begins at 2100, or at 1400 where the document before it is there, too.
    const state = whole.at(-80)?.state ?? '';
    const source = (JSON.parse(state) as { sources: { anchor: { rows: number; position: string } }[] })
      .sources[0];
    expect([1400, 2100]).toContain(source?.anchor.rows);
    expect(source?.anchor.position).toBe(String(source?.anchor.rows));
    const before = (await readFile(join(folder, 'starts-yes'), 'utf8')).length;
    await batchesOf(corpus, { state });
    const log = (await readFile(join(folder, 'starts-yes'), 'utf8')).slice(before);
    expect(log).toBe(`${source?.anchor.rows}\n`);
  });

  it('refuses the state of another command', async () => {
    await using corpus = corpusOf('yes');
    const [first] = await batchesOf(corpus);
    await using other = corpusOf('no');
    await expect(batchesOf(other, { state: first?.state })).rejects.toMatchObject({
      code: 'RESUME_MISMATCH',
      message: expect.stringMatching(/command was \[.*"yes"\] and is now \[.*"no"\]/),
    });
  });

  it.each(['grows', 'shrinks'])(
    'notices a program that does not write the same again: it %s',
    async (how) => {
      const count = how === 'grows' ? '$runs' : '$((4 - runs))';
      const code = `echo x >> "$0"; runs=$(wc -l < "$0"); for i in $(seq ${count}); do echo '{"batch":["a text"]}'; done
echo "{\\"done\\":true,\\"total\\":${count}}"`;
      const command = ['/bin/sh', '-c', code, join(folder, `log-${how}`)];
      await using corpus = new ProcessStreamingCorpus(command, { epochs: 2 });
      await expect(batchesOf(corpus)).rejects.toMatchObject({
        code: 'PROTOCOL_VIOLATION',
        message: expect.stringContaining('does not write the same again'),
      });
    },
  );
});

it('a tokenizer and a run learn from a program', async () => {
  await using corpus = corpusOf('yes');
  const texts = await Tokenizer.train(documents, { vocabSize: 400 });
  expect(tokenizer.encode('some words, document')).toEqual(texts.encode('some words, document'));
  const config = {
    model: {
      architecture: 'llama',
      hidden_size: 16,
      intermediate_size: 16,
      num_hidden_layers: 1,
      num_attention_heads: 1,
    },
    data: { dataset: 'replaced', sequence_length: 32, shuffle_buffer_size: 300 },
    training: { global_batch_size: 4, max_steps: 12, threads: 1 },
    checkpoint: { every_steps: 6 },
    evaluation: { documents: 20 },
  };
  const train = async (output: string, maxSteps: number) => {
    const values = { ...config, training: { ...config.training, max_steps: maxSteps } };
    const trainer = await Trainer.create({ config: values, corpus, tokenizer, output: join(folder, output) });
    let hash = '';
    for await (const event of trainer.run()) if (event.type === 'done') hash = event.stream_hash ?? '';
    await trainer.close();
    return hash;
  };
  const whole = await train('whole', 12);
  await train('parts', 6);
  expect(await train('parts', 12)).toBe(whole);
});
