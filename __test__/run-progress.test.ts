import { describe, expect, it, vi } from 'vitest';
import { parseConfig } from '../src/config/index.js';
import { duration, Progress, short } from '../src/run/index.js';
import type { TrainerEvent } from '../src/run/index.js';

const { config } = parseConfig(
  `tokenizer: {path: tok}
model: {architecture: qwen3, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2, num_attention_heads: 4}
data: {dataset: sample}
training: {max_steps: 100}
logging: {every_steps: 10}
`,
  'run.yaml',
);

class Recorder {
  text = '';
  readonly isTTY: boolean;
  readonly columns: number;

  constructor(isTTY: boolean, columns = 300) {
    this.isTTY = isTTY;
    this.columns = columns;
  }

  write(text: string): void {
    this.text += text;
  }
}

const step = (n: number): TrainerEvent => ({
  type: 'step',
  step: n,
  loss: 4.5,
  grad_norm: 0.81234,
  lr: 9.8e-4,
  tokens: n * 4096,
  documents: n * 8.5,
  epoch: 1,
  tokens_per_second: 12_345,
  samples_per_second: 8.5,
  data_wait: 0.034,
  stream_hash: '0'.repeat(16),
  time: 1000 + n,
});
const saved: TrainerEvent = {
  type: 'checkpoint',
  step: 20,
  path: 'runs/x/checkpoints/step-00000020',
  bytes: 15_900_000,
  seconds: 0.1,
  held_seconds: 0.01,
  copied: true,
};

function show(isTTY: boolean, options: { quiet?: boolean; colour?: boolean } = {}): string {
  const screen = new Recorder(isTTY);
  const progress = new Progress(screen, options);
  for (let n = 1; n <= 20; n++) progress.training(step(n), config);
  progress.training(saved, config);
  progress.close();
  return screen.text;
}

describe('progress', () => {
  it('says all that is promised, and when it will end', () => {
    const line = show(false).split('\n')[1] ?? '';
    for (const part of [
      'step 20/100',
      'loss 4.5000',
      'grad norm 0.812',
      'lr 9.80e-4',
      '12.3k tok/s',
      '8.50 samples/s',
      'data wait 3%',
      'mem ',
      '81.9k tokens',
      'ETA 1m20s',
    ]) {
      expect(line).toContain(part);
    }
  });

  it('is one line each logging.every_steps where there is no terminal', () => {
    expect(
      show(false)
        .split('\n')
        .map((line) => line.split('  ')[0]),
    ).toEqual(['step 10/100', 'step 20/100', 'saved runs/x/checkpoints/step-00000020, 15.9MB in 0.1 s', '']);
  });

  it('is one line written over and over on a terminal, ended before anything else is said', () => {
    const text = show(true, { colour: false });
    expect(text.split('\r\u001B[2K')).toHaveLength(21);
    expect(text.split('\n')).toHaveLength(3);
    expect(text.endsWith('in 0.1 s\n')).toBe(true);
    expect(text).not.toContain('\u001B[?25l');
  });

  it.each([48, 60, 80, 100, 120])('fits a terminal of %i columns, with samples/s and an ETA', (columns) => {
    const screen = new Recorder(true, columns);
    const progress = new Progress(screen);
    for (const n of [1, 2]) progress.training(step(n), config);
    const line = screen.text.split('\r\u001B[2K')[2] ?? '';
    expect(line.length).toBeLessThan(columns);
    expect(line).toMatch(/loss 4\.50+ .*8\.50 samples\/s .*ETA 1m38s$/);
  });

  it('has colour on a terminal only, and none with NO_COLOR', () => {
    expect(show(true, { colour: true })).toContain('\u001B[32m');
    expect(show(false, { colour: true })).not.toContain('\u001B[');
    process.env['NO_COLOR'] = '1';
    try {
      expect(show(true)).not.toContain('\u001B[32m');
    } finally {
      delete process.env['NO_COLOR'];
    }
  });

  it('is nothing when quiet', () => {
    expect(show(true, { quiet: true })).toBe('');
  });

  it('writes numbers in three digits and times as people do', () => {
    expect([0, 7, 999, 1000, 12_345, 999_999, 4.5e9].map(short)).toEqual([
      '0',
      '7',
      '999',
      '1.00k',
      '12.3k',
      '1.00M',
      '4.50G',
    ]);
    expect([0.5, 59, 185, 7620, 273_600].map(duration)).toEqual(['0.5 s', '59 s', '3m05s', '2h07m', '3d04h']);
  });
});

describe('a source that is waited for', () => {
  const retry = (attempt: number): TrainerEvent => ({
    type: 'source',
    kind: 'retry',
    message: `waiting for the data: 503 from the hub, attempt ${attempt}`,
  });
  const recovered: TrainerEvent = { type: 'source', kind: 'recovered', message: 'the data are back' };

  it('is one line that is written over in a terminal', () => {
    const screen = new Recorder(true);
    const progress = new Progress(screen, { colour: false });
    for (const attempt of [1, 2, 3]) progress.training(retry(attempt), config);
    expect(screen.text).not.toContain('\n');
    expect(screen.text.endsWith('\r\u001B[2Kwaiting for the data: 503 from the hub, attempt 3')).toBe(true);
    progress.training(recovered, config);
    expect(screen.text.endsWith('\nthe data are back\n')).toBe(true);
  });

  it('is told at once elsewhere, then every 30 s, and again when it fails anew', () => {
    vi.useFakeTimers();
    try {
      const screen = new Recorder(false);
      const progress = new Progress(screen);
      for (let attempt = 1; attempt <= 61; attempt++) {
        progress.training(retry(attempt), config);
        vi.advanceTimersByTime(1000);
      }
      progress.training(recovered, config);
      progress.training(retry(1), config);
      const attempts = screen.text.match(/attempt \d+|back/g);
      expect(attempts).toEqual(['attempt 1', 'attempt 31', 'attempt 61', 'back', 'attempt 1']);
    } finally {
      vi.useRealTimers();
    }
  });
});
