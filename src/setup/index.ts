/** The Python environment of the streamer, for the command line and for programs. */
import { fileURLToPath } from 'node:url';
import { errorFor } from '../errors.js';
import { type Environment, install, makeEnvironment, SetupError } from './python.mjs';

/** What `setUpPython` is told. */
export interface SetUpOptions {
  /** Folder of the virtual environment. */
  dir: string;
  /** Aborting it stops pip; a later call goes on. */
  signal?: AbortSignal;
  /** Told what is being done, one short line each. */
  say?: (what: string) => void;
}

/** Pinned requirements of the streamer. */
export const requirementsFile = fileURLToPath(new URL('../corpus/requirements.txt', import.meta.url));

/**
 * Makes the virtual environment with the pinned requirements, or leaves a finished one alone.
 * Throws `PYTHON_NOT_FOUND`, `PYTHON_PACKAGE_MISSING`, `OUTPUT_IN_USE`, `NOT_WRITABLE` or `ABORTED`.
 */
export async function setUpPython(options: SetUpOptions): Promise<Environment> {
  return typed(makeEnvironment({ ...options, requirements: requirementsFile }));
}

/** Installs wheels of CUDA's libraries into an environment. Throws `PYTHON_PACKAGE_MISSING` or `ABORTED`. */
export async function setUpCuda(
  python: string,
  wheels: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  await typed(install(python, wheels, 'the libraries of CUDA', { signal }));
}

/** Set-up knows the codes of errors, and not their classes. */
async function typed<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (error instanceof SetupError) throw errorFor(error.code, error.message, error.hint, error);
    throw error;
  }
}
