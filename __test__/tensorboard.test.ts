/** Event files: the bytes that TensorBoard's own writer makes, and what its reader reads of a run that was resumed. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { crc32c } from '../src/run/crc32c.js';
import { Trainer } from '../src/run/index.js';
import type { StepRow } from '../src/run/index.js';
import { EventFile } from '../src/run/tensorboard.js';
import { FakeNative } from './support/fake-native.js';

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-events-'));
});
afterEach(async () => {
  await rm(root, { recursive: true });
});

const row: StepRow = {
  step: 41,
  loss: 3.25,
  grad_norm: 0.1,
  lr: 6e-4,
  tokens: 167_936,
  documents: 300,
  epoch: 1,
  mix: [
    { share: 0.7, epoch: 1 },
    { share: 0.3, epoch: 2 },
  ],
  tokens_per_second: 8123.4,
  samples_per_second: 7.5,
  data_wait: 0,
  stream_hash: '0123456789abcdef',
  time: 1_790_000_001.5,
};

it('CRC-32C is that of RFC 3720', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
});

describe('an event file', () => {
  it('has the bytes that TensorBoard writes for the same events', () => {
    const file = EventFile.open(root, 40, 1_790_000_000.25);
    file.append(row);
    file.append({ step: 300_000, eval_loss: 3.5, bits_per_byte: 1.125, time: 1_790_000_002 });
    file.close();
    const fixture = fileURLToPath(new URL('fixtures/run.tfevents', import.meta.url));
    expect(readFileSync(file.path).equals(readFileSync(fixture))).toBe(true);
  });

  it('is a new one at every start, in the order of their names', async () => {
    const opened = [1_790_000_000, 1_790_000_000, 1_790_000_060].map((time) => EventFile.open(root, 0, time));
    for (const file of opened) file.close();
    expect((await readdir(root)).sort().map((name) => join(root, name))).toEqual(
      opened.map(({ path }) => path),
    );
  });

  it('that cannot be made says so', async () => {
    const file = join(root, 'in-the-way');
    await writeFile(file, '');
    expect(() => EventFile.open(file, 0)).toThrow(/in-the-way: a file is in the way/);
  });
});

describe('a run with logging.tensorboard', () => {
  const run = async (max_steps: number) => {
    const native = new FakeNative();
    const output = join(root, 'run');
    await mkdir(join(root, 'tok'), { recursive: true });
    await writeFile(join(root, 'tok', 'tokenizer.json'), '{"size":300}');
    await using trainer = await Trainer.create(
      {
        config: {
          tokenizer: { path: join(root, 'tok') },
          model: {
            architecture: 'llama',
            hidden_size: 64,
            intermediate_size: 64,
            num_hidden_layers: 1,
            num_attention_heads: 4,
          },
          data: { dataset: 'made/up', sequence_length: 32 },
          training: { max_steps, global_batch_size: 2 },
          evaluation: { documents: 5, every_steps: 5, sample_tokens: 0 },
          logging: { tensorboard: true },
        },
        output,
      },
      { binding: native.binding, openCorpus: () => native.corpus() },
    );
    for await (const _ of trainer.run());
    return join(output, 'tensorboard');
  };

  it('has a file for each start, with the steps of that start', async () => {
    const folder = await run(6);
    await run(10);
    const names = (await readdir(folder)).sort();
    const steps = names.map((name) => stepsOf(readFileSync(join(folder, name))));
    // Evaluations come at 5, 6 and 10; the first event with a step is the session log.
    expect(steps).toEqual([
      [1, 1, 2, 3, 4, 5, 5, 6, 6],
      [7, 7, 8, 9, 10, 10],
    ]);
  });
});

/** The steps of the events in a file, read as the format says. */
function stepsOf(file: Buffer): number[] {
  const steps: number[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    const payload = file.subarray(at + 12, at + 12 + length);
    // Nine bytes of wall time; then, where there is a step, its key and a varint.
    if (payload[9] === 0x10) steps.push(payload[10] as number);
    at += length + 16;
  }
  return steps;
}

/** A Python that imports TensorBoard, or null: `CANDLEWICK_TEST_PYTHON`, or `python3`. */
function tensorboardPython(): string | null {
  for (const python of [process.env['CANDLEWICK_TEST_PYTHON'], 'python3']) {
    if (python === undefined || python === '') continue;
    if (spawnSync(python, ['-c', 'import tensorboard']).status === 0) return python;
  }
  return null;
}

const python = tensorboardPython();
const READ = `
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
tags = events.Tags()["scalars"]
print(json.dumps({tag: [[e.step, e.value, e.wall_time] for e in events.Scalars(tag)] for tag in tags}))
`;

describe.skipIf(python === null)('TensorBoard’s reader (skipped where no Python imports tensorboard)', () => {
  it('reads every scalar, and forgets what a resume undid', () => {
    const losses = (first: number, last: number, loss: number, file: EventFile) => {
      for (let step = first; step <= last; step++)
        file.append({ ...row, step, loss, time: 1_790_000_000 + step });
      file.append({ step: last, eval_loss: loss, bits_per_byte: loss / 2, time: 1_790_000_000 + last });
      file.close();
    };
    losses(1, 30, 4, EventFile.open(root, 0, 1_790_000_000));
    // The run goes on from step 20: its steps 21 to 30 and their evaluation never were.
    losses(21, 40, 2, EventFile.open(root, 20, 1_790_000_100));
    const output = execFileSync(python as string, ['-c', READ, root], { encoding: 'utf8' });
    const scalars = JSON.parse(output) as Record<string, [number, number, number][]>;
    expect(scalars['train/loss']).toEqual(
      Array.from({ length: 40 }, (_, i) => [i + 1, i < 20 ? 4 : 2, 1_790_000_001 + i]),
    );
    expect(scalars['eval/bits_per_byte']).toEqual([[40, 1, 1_790_000_040]]);
    expect(scalars['train/lr']?.[0]?.[1]).toBeCloseTo(6e-4, 9);
    expect(Object.keys(scalars)).toContain('mix/1/share');
  });
});
