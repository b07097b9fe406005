/** A Python that can make virtual environments. */
export interface Interpreter {
  /** Its executable. */
  path: string;
  /** The name it was found by. */
  name: string;
  /** Such as 3.11.7. */
  version: string;
  /** Modules that it lacks of those needed. */
  missing: string[];
}

export interface EnvironmentOptions {
  /** Folder of the virtual environment. */
  dir: string;
  /** Path of the requirements file. */
  requirements: string;
  env?: NodeJS.ProcessEnv;
  /** Aborting it stops what runs; a later call goes on. */
  signal?: AbortSignal;
  /** Told what is being done, one short line each. */
  say?: (what: string) => void;
}

export interface Environment {
  /** Interpreter of the environment. */
  python: string;
  /** False where it was in place already. */
  made: boolean;
}

/** A failure of set-up; `code` is one of `errors.ts`. */
export class SetupError extends Error {
  readonly code: string;
  readonly hint: string;
  constructor(code: string, message: string, hint: string);
}

/** Oldest Python that will do, such as 3.10. */
export const oldestPython: string;
/** The first Python that can make the environment; throws SetupError PYTHON_NOT_FOUND. */
export function findPython(env?: NodeJS.ProcessEnv): Promise<Interpreter>;
/** Compares dotted version numbers. */
export function olderThan(version: string, least: string): boolean;
/** Interpreter of the environment in `dir`. */
export function environmentPython(dir: string): string;
/** Whether the environment in `dir` was finished with exactly these requirements. */
export function environmentReady(dir: string, requirements: string): Promise<boolean>;
/** Has pip install something (`wanted`, which is called `name`) into the environment of an interpreter. */
export function install(
  python: string,
  wanted: readonly string[],
  name: string,
  options?: { env?: NodeJS.ProcessEnv; signal?: AbortSignal | undefined },
): Promise<void>;
/** Makes the environment and installs the pinned requirements, or leaves a finished one alone. */
export function makeEnvironment(options: EnvironmentOptions): Promise<Environment>;
