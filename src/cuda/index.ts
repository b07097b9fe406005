/** What this machine has of CUDA, and whether this build can train on it. */
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bytesInWords } from '../estimate/units.js';
import { native } from '../native/index.js';
import type { CudaReport } from '../native/binding.js';

export type { CudaReport } from '../native/binding.js';

/** Why a GPU cannot be used. */
export interface CudaTrouble {
  code: string;
  message: string;
  hint: string;
}

/** Looks for a GPU by its number. Libraries are looked for once a process; the later calls give what the first one saw. */
export function cudaReport(ordinal = 0): CudaReport {
  return native().cudaReport(pythonEnvironments(), ordinal);
}

/** As {@link cudaReport}, and asks each GPU for its free memory, which may take a second. */
export function lookAtCuda(ordinal = 0): Promise<CudaReport> {
  return native().lookAtCuda(pythonEnvironments(), ordinal);
}

/** The number of the GPU that a device names: 0 unless it is `cuda:N`. */
export function ordinalOf(device: string): number {
  return Number(/^cuda:(\d+)$/.exec(device)?.[1] ?? 0);
}

/** Null where this build trains on the GPU that was looked for. */
export function troubleWith({ built, trouble }: CudaReport): CudaTrouble | null {
  if (built) return trouble;
  return {
    code: 'CUDA_UNAVAILABLE',
    message: 'this build of candlewick has no CUDA',
    hint: 'in a checkout: npm run build:cuda; or train with --device cpu',
  };
}

/** The GPUs in a line: name, memory, compute capability. */
export function gpusInWords({ gpus }: CudaReport): string {
  return gpus
    .map(({ name, capability, total, free }) => {
      const memory =
        free === null ? bytesInWords(total) : `${bytesInWords(free)} free of ${bytesInWords(total)}`;
      return `${name}, ${memory}, compute capability ${capability.join('.')}`;
    })
    .join('; ');
}

/** The driver in a few words; null where there is none. */
export function driverInWords({ driver }: CudaReport): string | null {
  if (driver === null) return null;
  return `driver ${driver.version ?? `at ${driver.path}`} (CUDA ${driver.cuda})`;
}

/** Where `nvidia-*` wheels may be: the environments that a Python for the streamer is looked for in. */
export function pythonEnvironments(env: NodeJS.ProcessEnv = process.env, cwd = process.cwd()): string[] {
  const python = env['CANDLEWICK_PYTHON'];
  const ownPackage = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
  const places = [
    // bin/python of an environment; the name of a program on PATH says nothing.
    python?.includes('/') === true ? dirname(dirname(python)) : undefined,
    env['VIRTUAL_ENV'],
    join(cwd, '.venv'),
    join(ownPackage, '.venv'),
  ];
  return [...new Set(places.filter((place) => place !== undefined && place !== ''))] as string[];
}
