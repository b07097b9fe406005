/**
 * Runs the shell steps of the workflows here, each job for one entry of its matrix that this machine could be, in a copy
 * of the clone. What reaches out of this machine or takes long (toolchains, registries, compilers, the whole test suite)
 * is answered by a stand-in on PATH; the project's own scripts are the real ones.
 */
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync } from 'node:fs';
import { rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { fakeBinary } from '../__test__/support/fake-binary.mjs';
import { run } from '../src/setup/run.mjs';
import { cudaVersion } from './cuda/toolkit.mjs';
import { binaryName, targetNamed, targets } from './targets.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
/** It installs from the registries, and is a check of its own. */
const ownCheck = /scripts\/container\.mjs/;
const here = `linux-${process.arch}-gnu`;

/** @param {string} workflows folder of the workflows */
export async function rehearse(workflows) {
  const place = mkdtempSync(join(tmpdir(), 'candlewick-rehearsal-'));
  try {
    const clone = join(place, 'clone');
    await copyClone(clone);
    const env = { ...process.env, ...standIns(join(place, 'bin'), join(place, 'said')), CI: 'true' };
    const troubles = [];
    let steps = 0;
    for (const name of readdirSync(workflows).sort()) {
      const { jobs } = parse(readFileSync(join(workflows, name), 'utf8'));
      for (const [job, definition] of Object.entries(jobs)) {
        const context = contextOf(definition);
        // What the job before handed over as artefacts.
        if (definition.needs !== undefined) placeArtefacts(clone, job);
        for (const step of definition.steps) {
          if (!step.run || ownCheck.test(step.run) || !holds(step.if, context)) continue;
          steps++;
          const script = substitute(step.run, context);
          const stepEnv = Object.fromEntries(
            Object.entries(step.env ?? {}).map(([key, value]) => [key, substitute(String(value), context)]),
          );
          const result = await run('bash', ['-eo', 'pipefail', '-c', script], {
            cwd: clone,
            env: { ...env, ...stepEnv },
          });
          if (result.code !== 0)
            troubles.push(`${name}: job ${job}: exit ${result.code}\n${script}\n${result.output}`);
        }
      }
    }
    troubles.push(...(await missing(join(place, 'said'))));
    return { troubles, steps };
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

async function copyClone(clone) {
  const listed = await run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
  });
  if (listed.code !== 0) throw new Error(`git ls-files: ${listed.output}`);
  for (const path of listed.stdout.split('\0').filter((path) => path && existsSync(join(root, path)))) {
    mkdirSync(dirname(join(clone, path)), { recursive: true });
    cpSync(join(root, path), join(clone, path));
  }
  cpSync(join(root, 'dist'), join(clone, 'dist'), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'));
  // As it is when a tag is pushed.
  const changelog = join(clone, 'CHANGELOG.md');
  writeFileSync(changelog, readFileSync(changelog, 'utf8').replace('(unreleased)', '(2000-01-01)'));
}

/** Programs that note what they are asked and do the least that the next step needs. */
function standIns(bin, said) {
  mkdirSync(bin);
  const target = targetNamed(here);
  // The binary of this checkout has no CUDA inside.
  const built = join(bin, 'built.node');
  writeFileSync(built, fakeBinary(target));
  const noted = `printf '%s\\n' "$(basename "$0") $*" >> '${said}'\n`;
  const programs = {
    rustup: '',
    // What pip is asked for is a compiler for CUDA, or ends up on PATH, where its stand-ins are.
    python3: `while [ $# -gt 1 ]; do
  if [ "$1" = --target ]; then
    mkdir -p "$2/nvidia/cu13/bin"
    printf '#!/bin/sh\\necho release ${cudaVersion}\\n' > "$2/nvidia/cu13/bin/nvcc"
    chmod +x "$2/nvidia/cu13/bin/nvcc"
  fi
  shift
done\n`,
    docker: '',
    hadolint: '',
    sudo: '',
    'apt-get': '',
    gh: '',
    'qemu-x86_64': '',
    'cargo-zigbuild': `case "$*" in
  *'--features cuda'*) ;;
  *) echo 'without CUDA' >&2; exit 1 ;;
esac
mkdir -p target/${target.rust}/release && cp '${built}' target/${target.rust}/release/libcandlewick_node.so\n`,
    npm: `case "$1" in
  start) echo 'loss 4.0000, 2.0000 bits per byte (unigram 3.1000, gzip -9 2.5); loss 5.0000 with one token of context' ;;
  test) echo '1 passed, 0 failed' ;;
  view) exit 1 ;;
  pack) exec '${process.execPath}' '${npmScript()}' "$@" ;;
esac\n`,
  };
  for (const [name, body] of Object.entries(programs)) {
    writeFileSync(join(bin, name), `#!/bin/sh\n${noted}${body}`);
    chmodSync(join(bin, name), 0o755);
  }
  return {
    PATH: `${bin}${delimiter}${process.env.PATH}`,
    CARGO_TARGET_DIR: '',
    CUDA_HOME: '',
    npm_execpath: '',
  };
}

/** The npm that belongs to this Node. */
function npmScript() {
  return (
    process.env.npm_execpath ?? join(dirname(process.execPath), '../lib/node_modules/npm/bin/npm-cli.js')
  );
}

/** The binary of this machine to try it; all of them, such as the gate lets through, to publish. */
function placeArtefacts(clone, job) {
  const folder = join(clone, 'artifacts/native');
  if (job === 'build') return;
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  if (job === 'try') {
    const name = `candlewick.${here}.node`;
    cpSync(join(root, 'dist/native', name), join(folder, name));
    return;
  }
  for (const target of targets) writeFileSync(join(folder, binaryName(target)), fakeBinary(target));
}

function contextOf({ strategy }) {
  const { include, ...lists } = strategy?.matrix ?? {};
  const matrix =
    include?.find(({ platform, image }) => platform === here && image === undefined) ??
    Object.fromEntries(Object.entries(lists).map(([key, values]) => [key, values[0]]));
  return {
    matrix,
    runner: { os: 'Linux' },
    github: { ref_name: `v${version}`, token: 'token' },
    secrets: { NPM_TOKEN: 'token' },
  };
}

function substitute(text, context) {
  return text.replace(/\$\{\{(.*?)\}\}/g, (_, expression) => String(evaluate(expression, context) ?? ''));
}

function holds(condition, context) {
  if (condition === undefined) return true;
  return Boolean(evaluate(String(condition).replace(/^\$\{\{(.*)\}\}$/, '$1'), context));
}

/** The part of GitHub's expressions that the workflows use: names, `!`, `==` with a text, `&&`. */
function evaluate(expression, context) {
  const parts = expression.split('&&').map((part) => {
    const [, negated, name, text] = /^\s*(!?)([\w.]+)(?:\s*==\s*'([^']*)')?\s*$/.exec(part) ?? [];
    if (name === undefined) throw new Error(`an expression that the rehearsal does not know: ${part}`);
    const value = name.split('.').reduce((found, key) => found?.[key], context);
    if (text !== undefined) return value === text;
    return negated ? !value : value;
  });
  return parts.length === 1 ? parts[0] : parts.every(Boolean);
}

/** What has to have been asked of the stand-ins: everything is published, the one that wants the others last. */
async function missing(said) {
  const lines = readFileSync(said, 'utf8').split('\n');
  const published = lines
    .filter((line) => line.startsWith('npm publish '))
    .map((line) => line.split('/').pop());
  const wanted = [...targets.map(({ triple }) => `candlewick-${triple}`), 'candlewick'];
  const troubles = [];
  if (published.join() !== wanted.join()) troubles.push(`published are ${published.join(', ') || 'none'}`);
  if (!lines.some((line) => line.startsWith('gh release create '))) troubles.push('no release was created');
  return troubles;
}
