/** Real runs of a model that is as small as can be, over documents that `cat` writes: nothing else has to start. */
import { type SpawnOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ProcessStreamingCorpus } from '../../src/corpus/index.js';
import { Trainer } from '../../src/run/index.js';
import type { SetupEvent, TrainerEvent } from '../../src/run/index.js';
import { Tokenizer } from '../../src/tokenizer/index.js';
import { started } from './program.js';
import { repository } from './python.js';

const texts = Array.from({ length: 40 }, (_, i) => `document ${i}: ${'a few words, '.repeat(i % 7)}`);

/** What the runs of a test file share. */
export class TinyRuns {
  readonly root: string;
  readonly #documents: string;

  private constructor(root: string) {
    this.root = root;
    this.#documents = join(root, 'documents.jsonl');
  }

  static async make(): Promise<TinyRuns> {
    const runs = new TinyRuns(await mkdtemp(join(tmpdir(), 'candlewick-tiny-')));
    const lines = [{ batch: texts }, { done: true, total: texts.length }];
    await writeFile(runs.#documents, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    await (await Tokenizer.train(texts, { vocabSize: 280 })).save(join(runs.root, 'tokenizer'));
    return runs;
  }

  async close(): Promise<void> {
    await rm(this.root, { recursive: true, force: true });
  }

  config(maxSteps: number, more: Record<string, unknown> = {}) {
    return {
      tokenizer: { path: join(this.root, 'tokenizer') },
      model: {
        architecture: 'llama',
        hidden_size: 16,
        intermediate_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 1,
      },
      data: { sequence_length: 16, shuffle_buffer_size: 20 },
      training: { global_batch_size: 2, max_steps: maxSteps, threads: 1 },
      schedule: { name: 'constant' },
      checkpoint: { every_steps: 1, keep_last: 2 },
      evaluation: { sample_tokens: 0 },
      ...more,
    };
  }

  /** Trains in this process. */
  async train(
    output: string,
    maxSteps: number,
    more: {
      config?: Record<string, unknown>;
      onSetup?: (event: SetupEvent) => void;
      each?: (event: TrainerEvent) => unknown;
    } = {},
  ): Promise<TrainerEvent[]> {
    await using corpus = new ProcessStreamingCorpus(['cat', this.#documents], { epochs: null });
    const config = this.config(maxSteps, more.config);
    const { onSetup } = more;
    await using trainer = await Trainer.create({ config, corpus, output, ...(onSetup ? { onSetup } : {}) });
    const events: TrainerEvent[] = [];
    for await (const event of trainer.run()) {
      events.push(event);
      await more.each?.(event);
    }
    return events;
  }

  /** Trains in a process of its own. */
  async program(
    output: string,
    maxSteps: number,
    env: Record<string, string> = {},
    options: SpawnOptions = {},
  ): Promise<{ end: number | string; stdout: string; stderr: string }> {
    const argument = JSON.stringify({ config: this.config(maxSteps), documents: this.#documents, output });
    const script = join(repository, '__test__/support/train-tiny.mjs');
    const child = spawn(process.execPath, [script, argument], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...options,
    });
    started(child);
    const said = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.setEncoding('utf8').on('data', (text: string) => {
        said[name] += text;
      });
    }
    const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
    return { end: code ?? signal ?? 'nothing', ...said };
  }

  /** Steps of a run with their losses and hashes: equal text is equal to the last bit. */
  async losses(output: string): Promise<string[]> {
    const text = await readFile(join(output, 'metrics.jsonl'), 'utf8');
    return text
      .split('\n')
      .filter((line) => line.includes('"loss"'))
      .map((line) => {
        const { step, loss, stream_hash: hash } = JSON.parse(line) as Record<string, unknown>;
        return `${String(step)} ${String(loss)} ${String(hash)}`;
      });
  }
}
