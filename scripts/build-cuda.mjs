/**
 * `npm run build:cuda`: the binding with CUDA inside, into dist/native-cuda, beside the one without. Needs no GPU.
 *
 * `-- --symbols` writes crates/cuda/symbols.txt anew, after a change that calls other functions of CUDA; `-- --lint` runs
 * clippy over the code that only this build has, `-- --test` its tests; `-- --resources` prints what each kernel takes;
 * `-- --gpu-check` makes the program that holds a GPU to the CPU, into artifacts/gpu-check; `-- --pod` packs Node, the packages
 * and what a user does with them, into artifacts/pod.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SetupError } from '../src/setup/python.mjs';
import { faults, inspectBinary } from './cuda/binary.mjs';
import { symbolList } from './cuda/symbols.mjs';
import { cudaToolkit } from './cuda/toolkit.mjs';
import { fail, part } from './output.mjs';
import * as parts from './parts.mjs';
import { podCheck } from './pod.mjs';
import { checkPrerequisites } from './prerequisites.mjs';
import { root } from './set-up.mjs';

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stop.abort());
const work = { root, env: process.env, signal: stop.signal };

async function main() {
  const { missing } = await checkPrerequisites(root, work.env);
  if (missing.length > 0) fail(missing, 3);
  await parts.npmPackages(work);
  const toolkit = await cudaToolkit(work, await parts.pythonEnvironment(work));
  if (process.argv.includes('--lint')) return parts.lintCuda(work, toolkit);
  if (process.argv.includes('--test')) return parts.testCuda(work, toolkit);
  if (process.argv.includes('--gpu-check')) return parts.gpuCheck(work, toolkit);
  if (process.argv.includes('--pod')) return podCheck(work, toolkit);
  if (process.argv.includes('--resources')) return parts.kernelResources(work, toolkit);

  const list = join(root, 'crates/cuda/symbols.txt');
  if (process.argv.includes('--symbols')) {
    writeFileSync(list, symbolList([]));
    const names = inspectBinary(await parts.nativeCuda(work, toolkit)).undefinedCuda;
    writeFileSync(list, symbolList(names));
    part('symbols', `${names.length} functions of CUDA, in crates/cuda/symbols.txt`);
  }
  const file = await parts.nativeCuda(work, toolkit);
  const binary = inspectBinary(file);
  const wrong = faults(binary);
  if (wrong.length > 0)
    fail(
      wrong.map((message) => ({ message, hint: `${file} is not to be used` })),
      1,
    );
  part(
    'CUDA inside',
    `${binary.architectures.join(', ')}; PTX ${binary.ptx.join('; ')}; needs ${binary.needed.join(', ')}`,
  );
  part('size', `${(readFileSync(file).length / 1e6).toFixed(1)} MB: ${file}`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  fail([error], error.exitCode ?? 3);
}
