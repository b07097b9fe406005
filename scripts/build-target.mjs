/**
 * Builds the binary of one platform as a release has it: `node scripts/build-target.mjs linux-arm64-gnu artifacts/native`.
 *
 * Linux is built with zig (`pip install ziglang cargo-zigbuild`), which links against an older C library than this
 * machine's and for other processors; the others by their own system's tools. What is compiled for x64 is x86-64-v2,
 * what every processor since 2009 has; faster code for newer ones is chosen when it runs. Where CUDA has to be inside,
 * nvcc is that of CUDA_HOME or comes from PyPI; for another processor than this machine's it wants that one's g++.
 */
import { copyFileSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SetupError } from '../src/setup/python.mjs';
import { run } from '../src/setup/run.mjs';
import { cudaEnvironment, cudaToolkit } from './cuda/toolkit.mjs';
import { fail } from './output.mjs';
import { faultsOfBinary } from './release-gate.mjs';
import { binaryName, targetNamed } from './targets.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const library = {
  linux: 'libcandlewick_node.so',
  darwin: 'libcandlewick_node.dylib',
  win32: 'candlewick_node.dll',
};

/** The compiler of a Linux of another processor, which nvcc gives the code around its kernels. */
const crossCompiler = { x64: 'x86_64-linux-gnu-g++', arm64: 'aarch64-linux-gnu-g++' };

/** @param {import('./targets.mjs').Target} target */
export function rustFlags(target) {
  const flags = target.cpu === 'x64' ? ['-C target-cpu=x86-64-v2'] : [];
  // A library that Node loads takes the C library that Node has.
  if (target.libc === 'musl') flags.push('-C target-feature=-crt-static');
  return flags.join(' ');
}

/** @param {import('./targets.mjs').Target} target */
export function buildCommand(target) {
  const features = target.cuda ? ['--features', 'cuda'] : [];
  const args = ['--locked', '--release', '-p', 'candlewick-node', ...features, '--target'];
  if (target.os !== 'linux') return ['cargo', 'build', ...args, target.rust];
  const rust = target.glibc === undefined ? target.rust : `${target.rust}.${target.glibc}`;
  return ['cargo-zigbuild', 'zigbuild', ...args, rust];
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [triple, out] = process.argv.slice(2);
  if (triple === undefined || out === undefined) {
    process.stderr.write('usage: node scripts/build-target.mjs PLATFORM OUT\n');
    process.exit(2);
  }
  try {
    await build(targetNamed(triple), resolve(out));
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    fail([error], error.exitCode ?? 3);
  }
}

async function build(target, out) {
  const [command, ...args] = buildCommand(target);
  const result = await run(command, args, {
    cwd: root,
    env: { ...(await environment(target)), RUSTFLAGS: rustFlags(target) },
    onLine: (line) => process.stderr.write(`${line}\n`),
  });
  if (result.code !== 0) {
    const missing = result.error === undefined ? '' : `${command}: ${result.error.message}\n`;
    const cure = command === 'cargo-zigbuild' ? 'hint: pip install ziglang cargo-zigbuild\n' : '';
    process.stderr.write(`${missing}error: ${target.triple} was not built\n${cure}`);
    process.exit(1);
  }
  const folder = process.env.CARGO_TARGET_DIR || join(root, 'target');
  const built = join(folder, target.rust, 'release', library[target.os]);
  const wrong = faultsOfBinary(built, target);
  if (wrong.length > 0) {
    for (const fault of wrong) process.stderr.write(`error: ${target.triple}: ${fault}\n`);
    process.exit(1);
  }
  mkdirSync(out, { recursive: true });
  const file = join(out, binaryName(target));
  copyFileSync(built, file);
  process.stdout.write(`${file}\n`);
}

async function environment(target) {
  if (!target.cuda) return process.env;
  const work = { root, env: process.env, signal: new AbortController().signal };
  const env = cudaEnvironment(process.env, await cudaToolkit(work, 'python3'));
  if (target.cpu !== process.arch) env.NVCC_CCBIN ??= crossCompiler[target.cpu];
  return env;
}
