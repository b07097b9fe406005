/**
 * Packs the package as it would be published, installs it into an empty folder without running any script, and
 * uses it there: what a user gets, not what the clone happens to hold.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../src/setup/run.mjs';
import { npmCommand } from './parts.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { name, version, bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const required = [
  'README.md',
  'CHANGELOG.md',
  'LICENSE-MIT',
  'LICENSE-APACHE',
  'configs/quickstart.yaml',
  'dist/index.js',
  'dist/index.d.ts',
  'dist/corpus/streamer.py',
  'dist/corpus/requirements.txt',
  ...Object.values(bin),
];
const unwanted = /^(src|crates|__test__|scripts|target|runs|\.venv)\/|__pycache__|\.tgz$/;

const folder = mkdtempSync(join(tmpdir(), 'candlewick-package-'));
try {
  await check();
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function check() {
  const [packed] = JSON.parse(
    await npm(root, 'pack', '--ignore-scripts', '--json', '--pack-destination', folder),
  );
  const files = packed.files.map((file) => file.path);
  for (const file of required) expect(files.includes(file), `the package lacks ${file}`);
  expect(
    files.some((file) => /^dist\/native\/candlewick\.[\w-]+\.node$/.test(file)),
    'the package lacks the binding of this platform',
  );
  for (const file of files) expect(!unwanted.test(file), `the package holds ${file}`);

  writeFileSync(join(folder, 'package.json'), '{ "name": "empty", "private": true, "type": "module" }\n');
  const install = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
  await npm(folder, ...install, join(folder, packed.filename));

  for (const command of Object.keys(bin)) {
    const help = await npm(folder, 'exec', '--no', '--', command, '--help');
    expect(/usage/i.test(help), `${command} --help prints no usage`);
  }
  const printed = (await npm(folder, 'exec', '--no', '--', name, '--version')).trim();
  expect(printed === version, `${name} --version prints ${printed}; package.json says ${version}`);

  const program = `
    import * as candlewick from '${name}';
    const names = Object.keys(candlewick);
    if (!names.includes('CandlewickError')) throw new Error('exports: ' + names.join(', '));
  `;
  await must(process.execPath, ['--input-type=module', '--eval', program], folder);
  process.stdout.write(`${packed.filename}: ${files.length} files, ${packed.size} bytes packed\n`);
}

function npm(cwd, ...args) {
  const [command, first] = npmCommand(process.env);
  return must(command, [...first, ...args], cwd);
}

async function must(command, args, cwd) {
  const result = await run(command, args, { cwd });
  expect(result.code === 0, `${args.join(' ')} in ${cwd}: exit ${result.code}\n${result.output}`);
  return result.stdout;
}

function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}
