import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { isBuilt, killAll, losses, start, started } from './support/program.js';

let root: string;
let config: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-whole-'));
  config = join(root, 'tiny.yaml');
  await writeFile(
    config,
    `tokenizer: {train: {max_samples: 60, vocab_size: 600}}
model: {architecture: qwen3, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, tie_word_embeddings: true}
data: {dataset: sample, sequence_length: 64, shuffle_buffer_size: 50}
training: {global_batch_size: 4, max_steps: 24, threads: 1}
optimizer: {lr: 3e-3}
checkpoint: {every_steps: 8}
evaluation: {every_steps: 8, documents: 3, sample_tokens: 8}
`,
  );
});
afterEach(async () => {
  killAll();
  await rm(root, { recursive: true, force: true });
});

const train = (output: string, ...argv: string[]) =>
  start('train-streaming', '--config', config, '--output', join(root, output), '--json', ...argv);

/** Processes whose parent is `pid`. */
function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
      } catch {
        return false;
      }
    })
    .map(Number);
}

const isAlive = (pid: number) => existsSync(`/proc/${pid}`);

describe.skipIf(!isBuilt)('the whole program', () => {
  it('killed after a checkpoint, twice, gives the losses of a run that was never killed, to the last bit', async () => {
    const whole = train('whole');
    expect(await whole.ended, whole.stderr).toBe(0);
    for (const checkpoint of [8, 16]) {
      const killed = train('killed');
      await killed.saw(new RegExp(`"type":"checkpoint","step":${checkpoint},`));
      killed.child.kill('SIGKILL');
      expect(await killed.ended).toBe('SIGKILL');
    }
    const last = train('killed');
    expect(await last.ended, last.stderr).toBe(0);
    const expected = await losses(root, 'whole');
    expect(expected).toHaveLength(24);
    expect(await losses(root, 'killed')).toEqual(expected);

    const again = train('killed');
    expect(await again.ended).toBe(0);
    expect(again.stdout).not.toContain('"type":"step"');
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s saves, exits with %i and leaves no process', async (signal, code) => {
    const program = train('run', '--max-steps', '100000');
    await program.saw(/"type":"step","step":3,/);
    const streamers = childrenOf(program.child.pid ?? 0);
    expect(streamers.length).toBeGreaterThan(0);
    program.child.kill(signal);
    expect(await program.ended, program.stderr).toBe(code);
    expect(streamers.filter(isAlive)).toEqual([]);
    const { step } = JSON.parse(program.stdout.trim().split('\n').at(-1) ?? '') as { step: number };
    expect(step).toBeGreaterThanOrEqual(3);
    expect(existsSync(join(root, 'run', 'checkpoints', `step-${String(step).padStart(8, '0')}`))).toBe(true);
    expect(existsSync(join(root, 'run', 'run.lock'))).toBe(false);
  });

  it('in a terminal shows samples/s and an ETA; one Ctrl+C saves and exits with 130', async () => {
    const script = `
import os, pty, re, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
before = termios.tcgetattr(fd)
seen, sent = b"", False
while True:
    try:
        chunk = os.read(fd, 65536)
    except OSError:
        break
    if not chunk:
        break
    seen += chunk
    if not sent and re.search(rb"samples/s.*ETA \\d", seen):
        os.write(fd, b"\\x03")
        sent = True
after = None
try:
    after = termios.tcgetattr(fd)
except termios.error:
    after = before
status = os.waitpid(pid, 0)[1]
print(repr({"same": after == before}))
sys.stdout.buffer.write(seen)
sys.exit(os.waitstatus_to_exitcode(status))
`;
    const argv = ['--config', config, '--output', join(root, 'run'), '--max-steps', '100000'];
    const terminal = spawn('python3', ['-c', script, process.execPath, 'bin/train-streaming.js', ...argv], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started(terminal);
    let text = '';
    terminal.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    const [code] = (await once(terminal, 'close')) as [number];
    expect(code, text).toBe(130);
    expect(text).toContain("{'same': True}");
    expect(text).toMatch(/the same command goes on from .*step-\d{8}/);
    expect(text).not.toContain('\u001B[?25l');
  });

  it('trains without a reader of its output', async () => {
    const program = train('run', '--max-steps', '4');
    program.child.stdout?.destroy();
    expect(await program.ended, program.stderr).toBe(0);
    expect(await losses(root, 'run')).toHaveLength(4);
  });

  it('refuses a second process on a run', async () => {
    const first = train('run', '--max-steps', '100000');
    await first.saw(/"type":"step"/);
    const second = train('run', '--max-steps', '100000');
    expect(await second.ended).toBe(2);
    expect(second.stderr).toContain('error[OUTPUT_IN_USE]');
    first.child.kill('SIGTERM');
    expect(await first.ended).toBe(143);
  });

  it.each(['gpt2_124m', 'runpod_1b', 'quickstart'])(
    'configs/%s.yaml trains two steps when it is made small',
    async (name) => {
      const sets = [
        'model.num_hidden_layers=1',
        'model.hidden_size=32',
        'model.intermediate_size=32',
        'model.num_attention_heads=2',
        'model.num_key_value_heads=1',
        'model.head_dim=16',
        'data.sequence_length=32',
        'data.config_name=null',
        'training.global_batch_size=2',
        'training.micro_batch_size=1',
        'tokenizer.train.vocab_size=400',
        'tokenizer.train.max_samples=20',
        'evaluation.documents=1',
      ].flatMap((set) => ['--set', set]);
      const argv = ['--config', `configs/${name}.yaml`, '--dataset', 'sample', '--output', join(root, name)];
      const program = start('train-streaming', ...argv, '--max-steps', '2', '--json', ...sets);
      expect(await program.ended, program.stderr).toBe(0);
      expect(await losses(root, name)).toHaveLength(2);
      expect(program.stdout).toContain('"type":"eval","step":2');
    },
  );

  it('a tokenizer trained by one command is used by the other, and reads what it wrote', async () => {
    const tokenizer = join(root, 'tokenizer');
    const flags = [
      '--dataset',
      'sample',
      '--max-samples',
      '40',
      '--vocab-size',
      '500',
      '--output',
      tokenizer,
    ];
    const first = start('train-tokenizer-streaming', ...flags, '--json');
    expect(await first.ended, first.stderr).toBe(0);
    const events = first.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { type: string });
    const quality = events.find(({ type }) => type === 'quality');
    expect(quality).toMatchObject({ tokenizer: { encoder: 'candlewick', vocab_size: 500 } });
    expect(quality).toMatchObject({ sample: { bytes_per_token: expect.any(Number) } });
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'trained' });
    const manifest: unknown = JSON.parse(readFileSync(join(tokenizer, 'tokenizer_manifest.json'), 'utf8'));
    expect(manifest).toMatchObject({
      pattern: 'gpt2',
      documents: 40,
      corpus: { dataset: 'sample', files: 3 },
    });
    const text = 'def f(x):\n    return "ü" * x';
    const encoded = start('candlewick', 'tokenizer', 'encode', tokenizer, text);
    expect(await encoded.ended, encoded.stderr).toBe(0);
    const decoded = start(
      'candlewick',
      'tokenizer',
      'decode',
      tokenizer,
      ...encoded.stdout.trim().split(' '),
    );
    expect(await decoded.ended, decoded.stderr).toBe(0);
    expect(decoded.stdout).toBe(`${text}\n`);
    const trained = train('run', '--tokenizer', tokenizer, '--max-steps', '2');
    expect(await trained.ended, trained.stderr).toBe(0);
    const generated = start(
      'candlewick',
      'generate',
      join(root, 'run'),
      '--prompt',
      'def ',
      '--max-tokens',
      '5',
    );
    expect(await generated.ended, generated.stderr).toBe(0);
    expect(generated.stdout).toMatch(/^def /);
  });

  it('refuses a tokenizer that does not fit, before anything is written', async () => {
    const first = train('run', '--max-steps', '1');
    expect(await first.ended, first.stderr).toBe(0);
    const flags = ['--tokenizer', join(root, 'run', 'tokenizer'), '--set', 'model.vocab_size=5000'];
    const other = train('other', ...flags);
    expect(await other.ended).toBe(2);
    expect(other.stderr).toMatch(/error\[TOKENIZER_MISMATCH\].*5000.*600/);
    expect(existsSync(join(root, 'other'))).toBe(false);
  });

  it('says how much vocabulary the text supports', async () => {
    const program = train(
      'run',
      '--set',
      'tokenizer.train.max_samples=1',
      '--set',
      'tokenizer.train.vocab_size=60000',
    );
    expect(await program.ended).toBe(2);
    expect(program.stderr).toContain('error[VOCAB_TOO_LARGE]');
    expect(existsSync(join(root, 'run'))).toBe(false);
  });
});
