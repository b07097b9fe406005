/** The parts of set-up, each with what it is made from and what it makes. */
import { copyFileSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { environmentPython, environmentReady, makeEnvironment, SetupError } from '../src/setup/python.mjs';
import { run } from '../src/setup/run.mjs';
import { cudaEnvironment } from './cuda/toolkit.mjs';
import { duration, part } from './output.mjs';
import { digest, Stamp } from './stamp.mjs';

/** How often a part that takes long says where it is. */
const sayEvery = 20_000;

/**
 * @typedef {object} Work
 * @property {string} root of the clone
 * @property {NodeJS.ProcessEnv} env
 * @property {AbortSignal} signal
 */

function stamp({ root }, name, ...inputs) {
  return new Stamp(join(root, 'node_modules/.cache/candlewick', `${name}.json`), digest(root, ...inputs));
}

/** Arguments that start npm itself, by the npm that runs us where there is one. */
export function npmCommand(env) {
  const script = env.npm_execpath;
  if (script && /\.c?js$/.test(script)) return [process.execPath, [script]];
  return [process.platform === 'win32' ? 'npm.cmd' : 'npm', []];
}

/** @param {Work} work */
export async function npmPackages(work) {
  const { root, env } = work;
  const made = stamp(
    work,
    'npm',
    ['package-lock.json'],
    [process.platform, process.arch, process.versions.modules],
  );
  if (made.holds()) return part('npm packages', 'in place');
  const [npm, first] = npmCommand(env);
  await step(work, 'npm packages', 'npm ci', npm, [...first, 'ci', '--no-audit', '--no-fund'], {
    // Children of `npm test` see NODE_ENV=test in some shells; development packages are needed whatever it says.
    env: { ...env, NODE_ENV: 'development' },
    hint: 'npm needs its registry: check the network, a proxy (HTTPS_PROXY) or `npm config get registry`, then repeat',
  });
  made.write([join(root, 'node_modules/.package-lock.json')]);
}

/** @param {Work} work */
export async function pythonEnvironment(work) {
  const { root, env, signal } = work;
  const dir = join(root, '.venv');
  const requirements = join(root, 'src/corpus/requirements.txt');
  if (await environmentReady(dir, requirements)) {
    part('Python environment', 'in place');
  } else {
    const started = performance.now();
    part('Python environment', '.venv with src/corpus/requirements.txt …');
    await makeEnvironment({ dir, requirements, env, signal });
    part('Python environment', `done in ${duration(performance.now() - started)}`);
  }
  return environmentPython(dir);
}

/**
 * Compiles src into dist and copies what tsc leaves: the streamer, its requirements, plain modules.
 *
 * @param {Work} work
 */
export async function typescript(work) {
  const { root } = work;
  const made = stamp(work, 'typescript', ['src', 'tsconfig.json', 'package-lock.json']);
  if (made.holds()) return part('TypeScript', 'in place');
  const dist = join(root, 'dist');
  // What an earlier source left behind must not end up in the package; the binding has its own part.
  if (existsSync(dist)) {
    for (const name of readdirSync(dist, { recursive: true })) {
      if (!name.endsWith('.node') && !statSync(join(dist, name)).isDirectory()) rmSync(join(dist, name));
    }
  }
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  await step(work, 'TypeScript', 'tsc', process.execPath, [tsc, '-p', 'tsconfig.json'], { code: 1 });
  copyPlain(join(root, 'src'), join(root, 'src'), dist);
  made.write([join(dist, 'index.js')]);
}

function copyPlain(source, folder, dist) {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if (statSync(path).isDirectory()) {
      if (name !== '__pycache__') copyPlain(source, path, dist);
    } else if (!name.endsWith('.ts')) {
      const target = join(dist, relative(source, path));
      mkdirSync(dirname(target), { recursive: true });
      copyFileSync(path, target);
    }
  }
}

const crateInputs = ['crates', 'Cargo.toml', 'Cargo.lock', 'rust-toolchain.toml', '.cargo'];

function nativeStamp(work) {
  const { env } = work;
  return stamp(work, 'native', crateInputs, [process.platform, process.arch, env.RUSTFLAGS ?? '']);
}

function cudaStamp(work) {
  return stamp(work, 'native-cuda', crateInputs, [process.arch, work.env.RUSTFLAGS ?? '']);
}

/**
 * Downloads the crates while npm still installs.
 *
 * @param {Work} work
 */
export async function crates(work) {
  if (nativeStamp(work).holds()) return;
  const host = await hostTriple(work);
  const target = host ? ['--target', host] : [];
  await step(work, 'Rust crates', 'cargo fetch', 'cargo', ['fetch', '--locked', ...target], {
    hint: 'cargo needs crates.io: check the network or a proxy (HTTPS_PROXY), then repeat',
  });
}

/**
 * Builds the binding in release mode into dist/native.
 *
 * @param {Work} work
 */
export async function native(work) {
  const { root } = work;
  const withCuda = join(root, 'dist/native-cuda');
  if (existsSync(withCuda) && !cudaStamp(work).holds()) {
    // It would be loaded first.
    rmSync(withCuda, { recursive: true });
    part('binding with CUDA', 'was of other sources and is gone: npm run build:cuda makes it anew');
  }
  const made = nativeStamp(work);
  if (made.holds()) return part('native binding', 'in place');
  const dist = join(root, 'dist/native');
  mkdirSync(dist, { recursive: true });
  mkdirSync(join(root, 'node_modules/.cache/candlewick'), { recursive: true });
  const args = napiArgs(work, dist);
  await step(work, 'native binding', 'cargo build --release', process.execPath, args, { code: 1 });
  const binaries = readdirSync(dist).filter((name) => name.endsWith('.node'));
  made.write(binaries.map((name) => join(dist, name)));
}

function napiArgs({ root }, dist, ...features) {
  const args = [join(root, 'node_modules/@napi-rs/cli/dist/cli.js'), 'build', '--platform', '--release'];
  // src/native declares what the binding offers; the generated declarations only get out of the way.
  const declarations = join(root, 'node_modules/.cache/candlewick/napi.d.ts');
  args.push('--no-js', '--dts', relative(dist, declarations), '--manifest-path', 'crates/node/Cargo.toml');
  args.push('--output-dir', relative(root, dist), ...features.flatMap((name) => ['--features', name]));
  return [...args, '--', '--locked'];
}

/**
 * Builds the binding with CUDA inside into dist/native-cuda, which leaves the one without as it is.
 *
 * @param {Work} work
 * @param {string} toolkit the folder that holds `bin/nvcc`
 * @returns {Promise<string>} the file
 */
export async function nativeCuda(work, toolkit) {
  const { root } = work;
  const dist = join(root, 'dist/native-cuda');
  mkdirSync(dist, { recursive: true });
  const made = cudaStamp(work);
  const binary = () => readdirSync(dist).find((name) => name.endsWith('.node'));
  if (made.holds()) {
    part('binding with CUDA', 'in place');
  } else {
    const what = 'cargo build --release --features cuda';
    const options = { code: 1, env: cudaEnvironment(work.env, toolkit) };
    await step(work, 'binding with CUDA', what, process.execPath, napiArgs(work, dist, 'cuda'), options);
    made.write([join(dist, binary())]);
  }
  return join(dist, binary());
}

/**
 * Clippy over the code that only this build has.
 *
 * @param {Work} work
 * @param {string} toolkit the folder that holds `bin/nvcc`
 */
export async function lintCuda(work, toolkit) {
  const args = [...(await cargoForCuda(work, 'clippy')), '--all-targets', '--', '-D', 'warnings'];
  const options = { code: 1, env: cudaEnvironment(work.env, toolkit) };
  await step(work, 'lint with CUDA', 'cargo clippy --features cuda', 'cargo', args, options);
}

/**
 * The tests of Rust that only this build has; none needs a GPU.
 *
 * @param {Work} work
 * @param {string} toolkit the folder that holds `bin/nvcc`
 */
export async function testCuda(work, toolkit) {
  const args = [...(await cargoForCuda(work, 'test')), '--test', 'trampolines', '--test', 'cuda_backend'];
  const options = { code: 1, env: cudaEnvironment(work.env, toolkit) };
  const output = await step(work, 'tests with CUDA', 'cargo test --features cuda', 'cargo', args, options);
  process.stdout.write(output);
}

/**
 * The program that holds a GPU to the CPU, for machines without Node and cargo, into artifacts/gpu-check.
 *
 * @param {Work} work
 * @param {string} toolkit the folder that holds `bin/nvcc`
 */
export async function gpuCheck(work, toolkit) {
  const { root, env } = work;
  const args = [...(await cargoForCuda(work, 'build')), '--bin', 'gpu-check'];
  const options = { code: 1, env: cudaEnvironment(work.env, toolkit) };
  await step(work, 'gpu-check', 'cargo build --bin gpu-check --features cuda', 'cargo', args, options);
  const target = env.CARGO_TARGET_DIR ?? join(root, 'target');
  const dist = join(root, 'artifacts/gpu-check');
  mkdirSync(dist, { recursive: true });
  for (const name of ['gpu-check', 'qwen3.py', 'gpu_baseline.py']) {
    const from =
      name === 'gpu-check'
        ? join(target, await hostTriple(work), 'release', name)
        : join(root, 'bench/step', name);
    copyFileSync(from, join(dist, name));
  }
  part('size', `${(statSync(join(dist, 'gpu-check')).size / 1e6).toFixed(1)} MB: ${join(dist, 'gpu-check')}`);
}

/**
 * What each kernel takes of a GPU; fails where one has local memory.
 *
 * @param {Work} work
 * @param {string} toolkit the folder that holds `bin/nvcc`
 */
export async function kernelResources(work, toolkit) {
  const options = { code: 1, env: cudaEnvironment(work.env, toolkit) };
  const script = [join(work.root, 'scripts/kernel-resources.mjs')];
  process.stdout.write(await step(work, 'kernels', 'ptxas -v', process.execPath, script, options));
}

/** As napi builds, in release mode and for a named target: what candle compiles for CUDA is compiled once. */
async function cargoForCuda(work, command) {
  const args = [command, '--locked', '--release', '--target', await hostTriple(work)];
  const crates = ['candlewick-cuda', 'candlewick-train', 'candlewick-node'];
  return [...args, ...crates.flatMap((name) => ['-p', name]), '--features', 'candlewick-node/cuda'];
}

async function hostTriple({ root, env }) {
  return (await run('rustc', ['-vV'], { cwd: root, env })).stdout.match(/^host: (.+)$/m)?.[1] ?? '';
}

/** Runs one program of a part, saying when it starts, where it is, and how long it took. */
export async function step({ root, env, signal }, name, what, command, args, options = {}) {
  const started = performance.now();
  part(name, `${what} …`);
  let last = '';
  const heartbeat = setInterval(() => {
    part(name, `${duration(performance.now() - started)}${last ? `: ${last}` : ''}`);
  }, sayEvery);
  const result = await run(command, args, {
    cwd: root,
    // What it prints is shown only where it fails, and then as it is.
    env: { ...(options.env ?? env), NO_COLOR: '1', CARGO_TERM_COLOR: 'never' },
    signal,
    onLine: (text) => {
      if (/^\s*(Compiling|Downloading|Building)\b/.test(text)) last = text.trim().replace(/ \(.*\)$/, '');
    },
  });
  clearInterval(heartbeat);
  if (result.stopped)
    throw new SetupError('ABORTED', 'stopped', 'run it again: it goes on from what is finished');
  if (result.code !== 0) {
    const output = result.error ? result.error.message : result.output.trimEnd();
    const error = new SetupError(
      'INTERNAL',
      `${name}: ${what} failed\n${output}`,
      options.hint ?? 'what it printed stands above',
    );
    error.exitCode = options.code ?? 3;
    throw error;
  }
  part(name, `done in ${duration(performance.now() - started)}`);
  return result.output;
}
