/** The machine: processor, memory, open files, graphics processor. */
import { readFileSync } from 'node:fs';
import { access } from 'node:fs/promises';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { bytesInWords, hostMemory } from '../estimate/index.js';
import { run } from '../setup/run.mjs';
import { olderThan } from '../setup/python.mjs';
import { fail, ok, warn } from './check.js';
import type { Check, DoctorOptions } from './check.js';

/** The instructions that the arithmetic has fast paths for, best last. */
const wanted = { x64: ['avx2', 'fma', 'avx512f'], arm64: ['asimd'] };

export function checkProcessor({ root = '/' }: DoctorOptions): Check {
  const threads = availableParallelism();
  const name = cpus()[0]?.model.trim() ?? process.arch;
  const described = `${name}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  const flags = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(read(join(root, 'proc/cpuinfo')))?.[1];
  const known = process.arch === 'x64' || process.arch === 'arm64' ? wanted[process.arch] : [];
  if (flags === undefined) return ok('processor', described);
  const has = known.filter((flag) => flags.split(/\s+/).includes(flag));
  const found = `${described}, ${has.length === 0 ? `none of ${known.join(', ')}` : has.join(' ')}`;
  return process.arch === 'x64' && !(has.includes('avx2') && has.includes('fma'))
    ? warn('processor', found, 'training on this processor is several times slower than on one with AVX2')
    : ok('processor', found);
}

/** Less than this is too little for any model; and for any that is not a toy. */
const LEAST_MEMORY = 0.5e9;
const LITTLE_MEMORY = 2e9;

export function checkMemory({ root = '/' }: DoctorOptions): Check {
  const { total, available, limited } = hostMemory(root);
  const found = `${bytesInWords(available)} free of ${bytesInWords(total)}${limited ? ' (limit of the container)' : ''}`;
  const cure = `close other programs${limited ? " or raise the container's memory limit" : ''}; candlewick estimate CONFIG says what a run takes`;
  if (available < LEAST_MEMORY) return fail('memory', found, cure);
  return available < LITTLE_MEMORY ? warn('memory', found, cure) : ok('memory', found);
}

/** The streamer keeps files and connections open, the trainer few. */
const ENOUGH_FILES = 1024;

export function checkOpenFiles({ root = '/' }: DoctorOptions): Check {
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(read(join(root, 'proc/self/limits')))?.[1];
  if (limit === undefined) return ok('open files', 'the limit is not known on this system');
  return limit !== 'unlimited' && Number(limit) < ENOUGH_FILES
    ? warn('open files', `at most ${limit}`, `raise the limit: ulimit -n ${ENOUGH_FILES * 4}`)
    : ok('open files', limit === 'unlimited' ? 'unlimited' : `at most ${limit}`);
}

/** The driver that CUDA 13.0 needs, and the oldest processors that its kernels are made for. */
const LEAST_DRIVER = '580.65';
const LEAST_CAPABILITY = '8.0';

export async function checkGpu({ env = process.env }: DoctorOptions): Promise<Check> {
  const query = 'name,driver_version,memory.free,memory.total,compute_cap';
  const result = await run('nvidia-smi', [`--query-gpu=${query}`, '--format=csv,noheader,nounits'], {
    env,
    timeout: 10_000,
  });
  const noCuda = 'this build has no CUDA and trains on the CPU';
  if (result.code === null) {
    const library = await findDriver(env);
    return library === null
      ? ok('gpu', `no NVIDIA driver; ${noCuda}`)
      : warn(
          'gpu',
          `${library} is there and nvidia-smi is not; ${noCuda}`,
          'install nvidia-smi to see the GPU',
        );
  }
  if (result.code !== 0) {
    return warn(
      'gpu',
      `nvidia-smi failed: ${result.output.trim().split('\n', 1)[0] ?? ''}; ${noCuda}`,
      'restart the driver or the machine; in a container, start it with --gpus all',
    );
  }
  const gpus = result.stdout
    .trim()
    .split('\n')
    .map((line) => line.split(',').map((part) => part.trim()));
  const found = gpus
    .map(
      ([name, , free, total]) =>
        `${name}, ${bytesInWords(Number(free) * 2 ** 20)} free of ${bytesInWords(Number(total) * 2 ** 20)}`,
    )
    .join('; ');
  const driver = gpus[0]?.[1] ?? '';
  const old = gpus.find(
    ([, , , , capability]) => capability !== undefined && olderThan(capability, LEAST_CAPABILITY),
  );
  if (olderThan(driver, LEAST_DRIVER)) {
    return warn(
      'gpu',
      `${found}; driver ${driver} is too old for CUDA 13.0; ${noCuda}`,
      `a build with CUDA will need driver ${LEAST_DRIVER} or newer: choose an image or host with it`,
    );
  }
  if (old !== undefined) {
    return warn(
      'gpu',
      `${found}; compute capability ${old[4]} is below ${LEAST_CAPABILITY}; ${noCuda}`,
      'a build with CUDA will need an A100, RTX 30 or newer',
    );
  }
  return ok('gpu', `${found}; driver ${driver} is new enough for CUDA 13.0, but ${noCuda}`);
}

/** Where the driver's library lies, without loading it. */
async function findDriver(env: NodeJS.ProcessEnv): Promise<string | null> {
  const folders = [
    ...(env['LD_LIBRARY_PATH'] ?? '').split(':').filter(Boolean),
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib/aarch64-linux-gnu',
    '/usr/lib64',
    '/usr/local/nvidia/lib64',
    '/usr/lib/wsl/lib',
  ];
  for (const folder of folders) {
    const path = join(folder, 'libcuda.so.1');
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return null;
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
