/** The Python environment of the streamer, for the command line and for programs. */
import { fileURLToPath } from 'node:url';
import { errorFor } from '../errors.js';
import { type Environment, makeEnvironment, SetupError } from './python.mjs';

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
  try {
    return await makeEnvironment({ ...options, requirements: requirementsFile });
  } catch (error) {
    if (error instanceof SetupError) throw errorFor(error.code, error.message, error.hint, error);
    throw error;
  }
}
