/** What `candlewick estimate` says, beside what real runs take: checkpoints always, memory of large runs when asked. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Estimate } from '../src/estimate/index.js';
import { isBuilt, killAll, startIn } from './support/program.js';
import { repository } from './support/python.js';

const preload = pathToFileURL(join(repository, '__test__', 'support', 'peak.mjs')).href;

describe.skipIf(!isBuilt)('an estimate', () => {
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-estimate-'));
  });
  afterAll(async () => {
    killAll();
    await rm(root, { recursive: true, force: true });
  });

  /** What is foretold of a configuration, and what a run of it took. */
  async function both(
    name: string,
    yaml: string,
  ): Promise<{ estimate: Estimate; peak: number; run: string }> {
    const config = join(root, `${name}.yaml`);
    await writeFile(config, yaml);
    const told = startIn({ cwd: root }, 'candlewick', 'estimate', config, '--json');
    expect(await told.ended, told.stderr).toBe(0);
    const estimate = JSON.parse(told.stdout) as Estimate;
    const peak = join(root, `${name}.peak`);
    const env = { CANDLEWICK_PEAK: peak, NODE_OPTIONS: `--import=${preload}` };
    const run = startIn({ cwd: root, env }, 'train-streaming', '--config', config, '--json');
    expect(await run.ended, run.stderr).toBe(0);
    return { estimate, peak: Number(await readFile(peak, 'utf8')), run: join(root, 'runs', name) };
  }

  it('is within 10 % of the real checkpoint, and of the steps', async () => {
    const { estimate, run } = await both(
      'small',
      `tokenizer: {train: {max_samples: 50, vocab_size: 600}}
model: {architecture: qwen3, hidden_size: 96, intermediate_size: 200, num_hidden_layers: 3, num_attention_heads: 4, num_key_value_heads: 2, head_dim: 24, tie_word_embeddings: true}
data: {dataset: sample, sequence_length: 64}
training: {global_batch_size: 4, max_tokens: 1500, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: null}
evaluation: {sample_tokens: 0}
`,
    );
    expect(estimate.steps).toBe(6);
    const [newest] = (await readdir(join(run, 'checkpoints'))).sort().reverse();
    expect(newest).toBe('step-00000006');
    const checkpoint = join(run, 'checkpoints', newest ?? '');
    let bytes = 0;
    for (const file of await readdir(checkpoint)) bytes += (await stat(join(checkpoint, file))).size;
    expect(Math.abs(estimate.disk.checkpoint / bytes - 1), `${bytes} bytes`).toBeLessThan(0.1);
  });

  const large = {
    'weights above all': `tokenizer: {train: {max_samples: 300, vocab_size: 8000}}
model: {architecture: qwen3, hidden_size: 768, intermediate_size: 2048, num_hidden_layers: 8, num_attention_heads: 12, tie_word_embeddings: true}
data: {dataset: sample, sequence_length: 256}
training: {global_batch_size: 4, max_steps: 4}
`,
    'activations above all': `tokenizer: {train: {max_samples: 300, vocab_size: 4096}}
model: {architecture: llama, hidden_size: 512, intermediate_size: 1536, num_hidden_layers: 8, num_attention_heads: 8, num_key_value_heads: 4, tie_word_embeddings: true}
data: {dataset: sample, sequence_length: 512}
training: {global_batch_size: 16, micro_batch_size: 8, max_steps: 4}
`,
    'a large vocabulary, evaluated': `tokenizer: {train: {max_samples: null, vocab_size: 24000}}
model: {architecture: qwen3, hidden_size: 640, intermediate_size: 1792, num_hidden_layers: 4, num_attention_heads: 10, tie_word_embeddings: false}
data: {dataset: sample, sequence_length: 512}
training: {global_batch_size: 4, max_steps: 6}
evaluation: {documents: 10, every_steps: 2, sample_tokens: 0}
`,
  };

  // Minutes of all processors: only when asked. The last one evaluates three times: the first time and the last it
  // waits for the checkpoint before it, and the second time it has the copy of the weights beside it, its peak.
  it.skipIf(process.env['CANDLEWICK_HEAVY'] === undefined).each(Object.entries(large))(
    'of memory is within 5 %% of the measured peak: %s',
    async (name, yaml) => {
      const rest = 'schedule: {name: constant}\noptimizer: {lr: 1.0e-4}\ncheckpoint: {every_steps: 2}\n';
      const { estimate, peak } = await both(name.replaceAll(/\W+/g, '-'), yaml + rest);
      const error = estimate.memory.peak / peak - 1;
      process.stdout.write(
        `${name}: measured ${(peak / 1e6).toFixed(0)} MB, estimated ${(estimate.memory.peak / 1e6).toFixed(0)} MB ` +
          `(${(100 * error).toFixed(2)} %) ${JSON.stringify(estimate.memory)}\n`,
      );
      expect(peak).toBeGreaterThan(1e9);
      expect(Math.abs(error)).toBeLessThan(0.05);
    },
    600_000,
  );
});
