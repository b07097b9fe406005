/** The compiler for CUDA: that of CUDA_HOME where it is of the right version, else fetched into the clone. */
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { SetupError } from '../../src/setup/python.mjs';
import { run } from '../../src/setup/run.mjs';
import { duration, part } from '../output.mjs';

/** PTX of a newer compiler does not load on the drivers of this version. */
export const cudaVersion = '13.0';

/** What PyPI has of it, pinned, and what that comes to. */
const wheels = [
  'nvidia-cuda-nvcc==13.0.88',
  'nvidia-cuda-crt==13.0.88',
  'nvidia-nvvm==13.0.88',
  'nvidia-cuda-runtime==13.0.96',
  'nvidia-cuda-cccl==13.0.85',
];
const size = '104 MB, 280 MB unpacked';

/**
 * @param {import('../parts.mjs').Work} work
 * @param {string} python that has pip
 * @returns {Promise<string>} the folder that holds `bin/nvcc`
 */
export async function cudaToolkit(work, python) {
  const { root, env } = work;
  const given = env.CUDA_HOME;
  const own = join(root, '.cuda', cudaVersion);
  const fetched = join(own, 'nvidia/cu13');
  let instead = '';
  if (given) {
    const version = await versionOf(given, work);
    if (version === cudaVersion) {
      part('CUDA compiler', `nvcc ${version} of CUDA_HOME`);
      return given;
    }
    instead = `CUDA_HOME has ${version === null ? 'no nvcc that starts' : `nvcc ${version}`}, ${cudaVersion} is needed: `;
  }
  if (existsSync(own)) {
    part('CUDA compiler', `${instead}nvcc ${cudaVersion} of .cuda, in place`);
    return fetched;
  }
  await fetchWheels(work, python, own, instead);
  return fetched;
}

/**
 * The variables that candle's build for CUDA reads, and ours.
 *
 * @param {NodeJS.ProcessEnv} env
 * @param {string} toolkit the folder that holds `bin/nvcc`
 */
export function cudaEnvironment(env, toolkit) {
  return {
    ...env,
    CUDA_HOME: toolkit,
    NVCC: join(toolkit, 'bin/nvcc'),
    PATH: `${join(toolkit, 'bin')}:${env.PATH ?? ''}`,
    // The lowest that there are kernels for; candle's are compiled for it alone, and by the driver for others.
    CUDA_COMPUTE_CAP: '80',
    CUDARC_CUDA_VERSION: '13000',
    // Each takes up to a gigabyte.
    CUDAFORGE_THREADS: env.CUDAFORGE_THREADS ?? '2',
  };
}

async function versionOf(home, { env, signal }) {
  const result = await run(join(home, 'bin/nvcc'), ['--version'], { env, signal });
  return result.code === 0 ? (/release (\d+\.\d+)/.exec(result.stdout)?.[1] ?? null) : null;
}

async function fetchWheels({ root, env, signal }, python, own, instead) {
  if (process.platform !== 'linux') {
    throw new SetupError('USAGE', 'candlewick is built with CUDA under Linux alone', 'build it on Linux');
  }
  const started = performance.now();
  part('CUDA compiler', `${instead}nvcc ${cudaVersion} from PyPI into .cuda (${size}) …`);
  const partial = `${own}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps'];
  const result = await run(python, [...pip, '--only-binary', ':all:', '--target', partial, ...wheels], {
    cwd: root,
    env,
    signal,
  });
  if (result.code !== 0) {
    throw new SetupError(
      'INTERNAL',
      `CUDA compiler: pip failed\n${result.output.trimEnd()}`,
      `pip needs PyPI: check the network or a proxy (HTTPS_PROXY), or set CUDA_HOME to a CUDA ${cudaVersion} toolkit`,
    );
  }
  const version = await versionOf(join(partial, 'nvidia/cu13'), { env, signal });
  if (version !== cudaVersion) {
    throw new SetupError(
      'INTERNAL',
      `the nvcc that was fetched ${version === null ? 'does not start' : `is ${version}`}`,
      `set CUDA_HOME to a CUDA ${cudaVersion} toolkit`,
    );
  }
  // Whole or not at all: a folder of this name is complete.
  renameSync(partial, own);
  part('CUDA compiler', `done in ${duration(performance.now() - started)}`);
}
