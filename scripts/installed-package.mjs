/**
 * Makes the packages as they would be published for this machine, installs them into an empty folder without running
 * any script, and uses them there with no compiler in reach: what a user gets, not what the clone happens to hold.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../src/setup/run.mjs';
import { typeConsumers } from './installed-types.mjs';
import { useInstalled } from './installed-use.mjs';
import { npmCommand } from './parts.mjs';
import { stagePackages } from './stage-packages.mjs';

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
  const staged = await stagePackages(join(root, 'dist/native'), join(folder, 'staged'));
  const tarballs = [];
  for (const one of staged) {
    const [packed] = JSON.parse(
      await npm(one.folder, 'pack', '--ignore-scripts', '--json', '--pack-destination', folder),
    );
    const files = packed.files.map((file) => file.path);
    for (const file of files) expect(!unwanted.test(file), `${one.name} holds ${file}`);
    const binaries = files.filter((file) => file.endsWith('.node'));
    if (one.name === name) {
      for (const file of required) expect(files.includes(file), `${name} lacks ${file}`);
      expect(
        binaries.length === 0,
        `${name} holds ${binaries.join(', ')}: a binary belongs into its package`,
      );
    } else {
      expect(binaries.length === 1, `${one.name} holds ${binaries.length} binaries`);
    }
    tarballs.push(join(folder, packed.filename));
    process.stdout.write(`${packed.filename}: ${files.length} files, ${packed.size} bytes packed\n`);
  }

  // What tools make of the exports and types of the published form.
  await tool('publint/src/cli.js', staged[0].folder, '--strict');
  await tool('@arethetypeswrong/cli/dist/index.js', tarballs[0], '--profile', 'esm-only', '--no-emoji');

  const project = mkdtempSync(join(folder, 'project-'));
  writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true, "type": "module" }\n');
  const install = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline'];
  await npm(project, ...install, ...tarballs);

  await typeConsumers(root, project, { must });
  await useInstalled(project, { name, version, bin, root, expect });
}

function tool(path, ...args) {
  return must(process.execPath, [join(root, 'node_modules', path), ...args], root);
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
