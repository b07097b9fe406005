/** A case over the real program with a tiny model: losses and hashes are those of a run that nothing happened to. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { losses } from '../support/program.js';
import { repository } from '../support/python.js';
import { type Blow, runLeg } from './blows.js';
import { blowsOf } from './case.js';
import type { Running } from './run.js';

const resumes = 5;

/** Rejects with what was found to be different. */
export async function runTrainer(running: Running): Promise<void> {
  const { bench, env, expected, faults, folder, hub, random, rows, sequenceLength } = running;
  const config = join(folder, 'tiny.yaml');
  const left = Math.ceil(expected.targets / (rows * sequenceLength));
  const every = 1 + random.below(Math.max(1, Math.ceil(left / 4)));
  await writeFile(
    config,
    `tokenizer: {path: ${bench.tokenizer}}
model: {architecture: llama, hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 1}
data: {dataset: ${running.sources[0]?.dataset}, sequence_length: ${sequenceLength}, shuffle_buffer_size: ${running.window}, seed: ${running.order}, epochs: ${running.epochs}, max_samples: ${running.maxSamples}}
training: {global_batch_size: ${rows}, micro_batch_size: ${rows}, threads: 1}
schedule: {name: constant}
checkpoint: {every_steps: ${every}}
evaluation: {documents: ${running.heldOut}}
`,
  );
  const train = (output: string, blows: Blow[], isDisturbed: boolean) =>
    runLeg(
      {
        argv: [
          join(repository, 'bin/train-streaming.js'),
          '--config',
          config,
          '--output',
          join(folder, output),
          '--batch-size',
          String(1 + random.below(60)),
          '--json',
        ],
        env,
        blows,
        meaning: (line) =>
          /"type":"step"/.test(line) ? 'batch' : /"type":"checkpoint"/.test(line) ? 'save' : null,
        hub,
        faults: isDisturbed ? faults : () => null,
      },
      running.tally,
    );
  const whole = await train('whole', [], false);
  if (whole.end !== 0) throw new Error(`the undisturbed run ended with ${whole.end}: ${whole.stderr}`);
  const legs = 2 + random.below(resumes);
  for (let leg = 1; leg <= legs; leg += 1) {
    const isLast = leg === legs;
    const { end, stderr } = await train('disturbed', blowsOf(random, left, isLast), true);
    const endings: unknown[] = isLast ? [0] : [0, 130, 143, 'SIGKILL', 'SIGINT', 'SIGTERM'];
    if (!endings.includes(end)) throw new Error(`leg ${leg} of ${legs} ended with ${end}: ${stderr}`);
  }
  const [wanted, found] = [await losses(folder, 'whole'), await losses(folder, 'disturbed')];
  const at = wanted.findIndex((row, i) => row !== found[i]);
  if (at >= 0 || found.length !== wanted.length) {
    throw new Error(
      `${found.length} steps of ${wanted.length}; step ${at + 1} is ${found[at]}, not ${wanted[at]}`,
    );
  }
  for (const output of ['whole', 'disturbed']) {
    const rows = (await readFile(join(folder, output, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const last = rows
      .map((row) => JSON.parse(row) as Record<string, unknown>)
      .findLast((row) => 'loss' in row);
    const hash = expected.hash(expected.targets);
    if (last?.tokens !== expected.targets || last.stream_hash !== hash) {
      throw new Error(
        `${output}: ${last?.tokens} targets, hash ${last?.stream_hash}, not ${expected.targets}, ${hash}`,
      );
    }
  }
}
