/** A user's first minutes with the installed package: every command, with nothing on PATH but Node, npm and a shell. */
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from '../src/setup/run.mjs';
import { npmCommand } from './parts.mjs';

const windows = process.platform === 'win32';

/**
 * @param {string} project with the packages installed
 * @param {{ name: string, version: string, bin: Record<string, string>, root: string, expect: (holds: boolean, otherwise: string) => void }} about
 */
export async function useInstalled(project, { name, version, bin, root, expect }) {
  const python = process.env.CANDLEWICK_PYTHON ?? join(root, '.venv/bin/python');
  const env = { ...process.env, ...bare(project), CANDLEWICK_PYTHON: python, HF_HUB_OFFLINE: '1' };
  const [npm, first] = npmCommand(process.env);
  const npx = async (...args) => {
    const result = await run(npm, [...first, 'exec', '--no', '--', ...args], { cwd: project, env });
    expect(result.code === 0, `${args.join(' ')}: exit ${result.code}\n${result.output}`);
    return result.stdout;
  };

  for (const command of Object.keys(bin)) {
    const help = await npx(command, '--help');
    expect(/usage/i.test(help), `${command} --help prints no usage`);
  }
  const printed = (await npx(name, '--version')).trim();
  expect(printed === version, `${name} --version prints ${printed}; package.json says ${version}`);

  const doctor = await npx(name, 'doctor', '--output', join(project, 'runs'));
  expect(
    /^ok +binding .*from candlewick-/m.test(doctor),
    `doctor does not say which package it loads:\n${doctor}`,
  );

  const text = join(project, 'texts.jsonl');
  const lines = Array.from({ length: 400 }, (_, i) =>
    JSON.stringify({ text: `document ${i}: ${'a few words, and some more. '.repeat(1 + (i % 7))}` }),
  );
  writeFileSync(text, `${lines.join('\n')}\n`);
  const source = ['--dataset', text, '--max-samples', '300'];
  await npx(
    'train-tokenizer-streaming',
    ...source,
    '--vocab-size',
    '320',
    '--output',
    'tokenizer',
    '--quiet',
  );
  writeFileSync(join(project, 'tiny.yaml'), tiny);
  const training = [
    'train-streaming',
    '--config',
    'tiny.yaml',
    '--dataset',
    text,
    '--tokenizer',
    'tokenizer',
  ];
  const steps = () =>
    readFileSync(join(project, 'run/metrics.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('"loss"'))
      .map((line) => JSON.parse(line).step);
  await npx(...training, '--output', 'run', '--max-steps', '10', '--quiet');
  expect(steps().join() === '1,2,3,4,5,6,7,8,9,10', `ten steps are in metrics.jsonl: ${steps()}`);
  // The same command goes on where the directory stands.
  await npx(...training, '--output', 'run', '--max-steps', '14', '--quiet');
  expect(steps().join() === '1,2,3,4,5,6,7,8,9,10,11,12,13,14', `resumed without a hole: ${steps()}`);
  const written = await npx(name, 'generate', 'run', '--prompt', 'document', '--max-tokens', '8', '--json');
  expect(/"type":"done"/.test(written), `generate --json ends with no result: ${written}`);
}

const tiny = `model:
  architecture: llama
  hidden_size: 32
  intermediate_size: 64
  num_hidden_layers: 2
  num_attention_heads: 2
data: { sequence_length: 32, shuffle_buffer_size: 50, seed: 1 }
training: { global_batch_size: 4, seed: 1 }
schedule: { name: constant }
checkpoint: { every_steps: 5, keep_last: 2 }
evaluation: { sample_tokens: 0 }
`;

/** An environment whose PATH leads to no compiler and to nothing of the clone. */
function bare(project) {
  if (windows) return {};
  const folder = join(project, 'path');
  mkdirSync(folder);
  symlinkSync(process.execPath, join(folder, 'node'));
  symlinkSync('/bin/sh', join(folder, 'sh'));
  const npm = join(dirname(process.execPath), 'npm');
  symlinkSync(npm, join(folder, 'npm'));
  return { PATH: folder, npm_config_script_shell: '/bin/sh', CARGO_HOME: join(project, 'nothing') };
}
