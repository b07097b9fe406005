/** The machine: processor, memory, open files, graphics processor. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import { driverInWords, gpusInWords, lookAtCuda, troubleWith } from '../cuda/index.js';
import type { CudaReport } from '../cuda/index.js';
import { bytesInWords, hostMemory } from '../estimate/index.js';
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

/** The GPUs by the code that training looks at them with. Without any, the CPU trains: nothing to warn of. */
export async function checkGpu({ look = lookAtCuda }: DoctorOptions): Promise<Check> {
  let report: CudaReport;
  try {
    report = await look();
  } catch {
    return ok('gpu', 'not looked at, since the binding does not load');
  }
  const trouble = troubleWith(report);
  const driver = driverInWords(report);
  if (driver === null)
    return ok('gpu', `${report.trouble?.message ?? 'no NVIDIA driver'}; training on the CPU`);
  const found = `${report.gpus.length === 0 ? 'no GPU' : gpusInWords(report)}; ${driver}`;
  if (trouble === null) return ok('gpu', found);
  // What the machine lacks would be in the way of a build with CUDA too.
  const { message, hint } = report.trouble ?? trouble;
  return warn('gpu', `${found}; training on the CPU: ${message}`, hint);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
