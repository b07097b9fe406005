/** Runs on the fake native side, in a directory of the test's own. */
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { Trainer } from '../../src/run/index.js';
import type { SourceReady, TrainerEvent, TrainerOptions } from '../../src/run/index.js';
import { FakeNative, lossOf } from './fake-native.js';

export interface Setup extends Partial<TrainerOptions> {
  native?: FakeNative;
  ready?: Partial<SourceReady>;
  /** Called with each event; the next is taken when it is done. */
  each?: (event: TrainerEvent, trainer: Trainer) => unknown;
}

/** What a test file works in; new for each test. */
export class FakeRun {
  root = '';
  /** Where runs write to unless they are told otherwise. */
  output = '';

  constructor() {
    beforeEach(async () => {
      this.root = await mkdtemp(join(tmpdir(), 'candlewick-trainer-'));
      this.output = join(this.root, 'run');
      await mkdir(join(this.root, 'tok'));
      await writeFile(join(this.root, 'tok', 'tokenizer.json'), '{"size":300}');
    });
    afterEach(async () => {
      await rm(this.root, { recursive: true });
    });
  }

  /** A small configuration; `more` replaces whole sections. */
  values(more: Record<string, unknown> = {}) {
    return {
      tokenizer: { path: join(this.root, 'tok') },
      model: {
        architecture: 'qwen3',
        hidden_size: 64,
        intermediate_size: 64,
        num_hidden_layers: 1,
        num_attention_heads: 4,
      },
      data: { dataset: 'made/up', sequence_length: 32 },
      training: { max_steps: 10, global_batch_size: 2 },
      checkpoint: { every_steps: 4 },
      evaluation: { every_steps: 4, documents: 5 },
      ...more,
    };
  }

  async create({ native = new FakeNative(), ready = {}, each: _, ...options }: Setup = {}): Promise<Trainer> {
    return Trainer.create(
      { config: this.values(), output: this.output, ...options },
      { binding: native.binding, openCorpus: (data) => native.corpus(ready, data) },
    );
  }

  /** Runs to the end; returns the events. */
  async run(setup: Setup = {}): Promise<TrainerEvent[]> {
    await using trainer = await this.create(setup);
    const events: TrainerEvent[] = [];
    for await (const event of trainer.run()) {
      events.push(event);
      await setup.each?.(event, trainer);
    }
    return events;
  }

  /** The rows of a file of JSON lines in the run directory. */
  async lines<
    T = { step: number; loss?: number; eval_loss?: number; skipped_steps?: number; loss_z?: number },
  >(name: string): Promise<T[]> {
    const text = await readFile(join(this.output, name), 'utf8');
    return text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as T);
  }

  async rows() {
    return this.lines('metrics.jsonl');
  }

  async losses() {
    return (await this.rows()).filter((row) => 'loss' in row).map(({ step, loss }) => [step, loss]);
  }

  /** Names of the checkpoints that lie in the run directory. */
  async checkpoints() {
    return readdir(join(this.output, 'checkpoints'));
  }
}

/** The losses of a run that nothing happened to. */
export const uninterrupted = (last: number) => Array.from({ length: last }, (_, i) => [i + 1, lossOf(i + 1)]);
