/** A run in a real terminal, which goes away. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { isBuilt, killAll, losses, startIn, started } from './support/program.js';
import { python, repository } from './support/python.js';

const config = `
tokenizer: {train: {max_samples: 50, vocab_size: 600}}
model: {architecture: qwen3, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 2, head_dim: 32}
data: {dataset: sample, sequence_length: 64}
training: {global_batch_size: 4, max_steps: 300, threads: 1}
optimizer: {lr: 1.0e-3}
schedule: {name: constant}
evaluation: {sample_tokens: 0}
`;

describe.skipIf(!isBuilt || process.platform === 'win32')('a terminal that is closed', () => {
  let root: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-terminal-'));
    await writeFile(join(root, 'tiny.yaml'), config);
  });
  afterAll(async () => {
    killAll();
    await rm(root, { recursive: true, force: true });
  });

  const train = (output: string) => ['--config', 'tiny.yaml', '--output', output];

  it('has its run save and stop by SIGHUP, and the next one goes on exactly', async () => {
    const script = join(repository, '__test__', 'support', 'terminal.py');
    const program = join(repository, 'bin', 'train-streaming.js');
    // Some three hundred steps before it would end.
    const command = [process.execPath, program, ...train('struck')];
    const child = spawn(python, [script, 'step-00000000', ...command], {
      cwd: root,
      env: { ...process.env, CANDLEWICK_PYTHON: python, TERM: 'xterm' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started(child);
    let drawn = '';
    child.stdout.on('data', (chunk: Buffer) => (drawn += chunk.toString()));
    const [code] = (await once(child, 'close')) as [number | null];
    expect(code, drawn.slice(-500)).toBe(0);
    // Python's word for the signal; a shell says 129.
    expect(drawn).toMatch(/ended: -1\n$/);
    const log = await readFile(join(root, 'struck', 'train.log'), 'utf8');
    expect(log).toMatch(/stopped after step \d+/);

    for (const output of ['struck', 'whole']) {
      const run = startIn({ cwd: root }, 'train-streaming', ...train(output));
      expect(await run.ended, run.stderr).toBe(0);
    }
    expect(await losses(root, 'struck')).toEqual(await losses(root, 'whole'));
  }, 120_000);
});
