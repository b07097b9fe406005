/** TypeScript that imports the installed package, under each way of finding modules that its users have. */
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const program = `
import {
  CandlewickError, HuggingFaceStreamingCorpus, Model, MultiCorpus, ProcessStreamingCorpus, StreamingTextDataLoader,
  Tokenizer, Trainer,
} from 'candlewick';
import type { ErrorCode, LoaderBatch, TrainerEvent } from 'candlewick';

type Exact<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : never;
const exact = <A, B>(_: Exact<A, B>): void => undefined;

export async function consume(signal: AbortSignal): Promise<void> {
  await using corpus = new HuggingFaceStreamingCorpus('sample', { split: 'train', maxSamples: 10, signal });
  const other = new ProcessStreamingCorpus(['cat', 'texts.jsonl'], { cwd: '.' });
  const mixed = new MultiCorpus([corpus, { corpus: other, weight: 0.5, onExhausted: 'repeat' }]);
  for await (const text of mixed.stream()) exact<typeof text, string>(true);
  const tokenizer = await Tokenizer.train(corpus, { vocabSize: 300, pattern: 'gpt2' });
  exact<ReturnType<typeof tokenizer.encode>, Uint32Array>(true);
  const loader = new StreamingTextDataLoader(corpus, tokenizer, { batchSize: 2, sequenceLength: 8 });
  for await (const batch of loader) {
    exact<typeof batch, LoaderBatch>(true);
    exact<typeof batch.inputs, Uint32Array>(true);
  }
  const trainer = await Trainer.create({ config: {}, corpus, tokenizer, output: 'run', signal });
  for await (const event of trainer.run()) {
    exact<typeof event, TrainerEvent>(true);
    if (event.type === 'step') exact<typeof event.loss, number>(true);
  }
  const model = await Model.load('run', { device: 'cpu' });
  for await (const piece of model.generate('Once', { maxTokens: 3 })) exact<typeof piece, string>(true);
  try {
    await trainer.close();
  } catch (error) {
    if (error instanceof CandlewickError) exact<typeof error.code, ErrorCode>(true);
  }
  // @ts-expect-error: an option that does not exist
  new HuggingFaceStreamingCorpus('sample', { maxSample: 1 });
}
`;

/** @param {string} root @param {string} project with the packages installed */
export async function typeConsumers(root, project, { must }) {
  // Node's own declarations, which every TypeScript program for Node has.
  for (const name of ['@types/node', 'undici-types'])
    cpSync(join(root, 'node_modules', name), join(project, 'node_modules', name), { recursive: true });
  const consumers = { node16: 'node16', bundler: 'esnext' };
  for (const [moduleResolution, module] of Object.entries(consumers)) {
    const folder = join(project, moduleResolution);
    mkdirSync(folder);
    writeFileSync(join(folder, 'consumer.ts'), program);
    const compilerOptions = {
      target: 'es2022',
      lib: ['es2022', 'esnext.disposable'],
      module,
      moduleResolution,
      types: ['node'],
      strict: true,
      exactOptionalPropertyTypes: true,
      // Our declarations are checked, too.
      skipLibCheck: false,
      noEmit: true,
    };
    writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions }));
    await must(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', folder], project);
  }
}
