/** Every failure a user can meet: a class, a stable code, a message that says what happened, a hint that says what to do. */

const exitCodes = {
  CONFIG_INVALID: 2,
  USAGE: 2,
  OUTPUT_IN_USE: 2,
  RESUME_MISMATCH: 2,
  TOKENIZER_INVALID: 2,
  TOKENIZER_MISMATCH: 2,
  VOCAB_TOO_LARGE: 2,
  CHECKPOINT_CORRUPT: 3,
  DISK_FULL: 3,
  NOT_WRITABLE: 3,
  PYTHON_NOT_FOUND: 3,
  PYTHON_PACKAGE_MISSING: 3,
  NATIVE_NOT_FOUND: 3,
  CUDA_UNAVAILABLE: 3,
  CUDA_DRIVER_TOO_OLD: 3,
  STREAMER_CRASHED: 4,
  STREAMER_TIMEOUT: 4,
  DATASET_NOT_FOUND: 4,
  SPLIT_NOT_FOUND: 4,
  COLUMN_NOT_FOUND: 4,
  DATASET_EMPTY: 4,
  AUTH_REQUIRED: 4,
  SOURCE_UNAVAILABLE: 4,
  SOURCE_CORRUPT: 4,
  PROTOCOL_VIOLATION: 4,
  OUT_OF_MEMORY_DEVICE: 5,
  OUT_OF_MEMORY_HOST: 5,
  DIVERGED: 6,
  ABORTED: 130,
  INTERNAL: 1,
} as const;

/** Stable identifier of a kind of failure. */
export type ErrorCode = keyof typeof exitCodes;

/** Base class of every error that this package throws on purpose. */
export class CandlewickError extends Error {
  /** Stable identifier, for programs. */
  readonly code: ErrorCode;
  /** What to do next, for people. */
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
    this.hint = hint;
  }

  /** Exit code of a command that ends with this error. */
  get exitCode(): number {
    return exitCodes[this.code];
  }
}

/** A command line or configuration that cannot be carried out (exit code 2). */
export class ConfigurationError extends CandlewickError {}
/** Something of this machine is missing or full: Python, a library, the disk (exit code 3). */
export class EnvironmentError extends CandlewickError {}
/** The data source failed (exit code 4). */
export class SourceError extends CandlewickError {}
/** The device or the host has too little memory (exit code 5). */
export class OutOfMemoryError extends CandlewickError {}
/** Loss or gradients are no longer finite (exit code 6). */
export class DivergedError extends CandlewickError {}
/** Stopped by the caller's signal. */
export class AbortedError extends CandlewickError {}

const classes = new Map<number, typeof CandlewickError>([
  [2, ConfigurationError],
  [3, EnvironmentError],
  [4, SourceError],
  [5, OutOfMemoryError],
  [6, DivergedError],
  [130, AbortedError],
]);

/** True for a string that is one of our error codes. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(exitCodes, code);
}

/** The error of the class that belongs to `code`; an unknown code is a bug of ours and becomes INTERNAL. */
export function errorFor(code: string, message: string, hint: string, cause?: unknown): CandlewickError {
  const known: ErrorCode = isErrorCode(code) ? code : 'INTERNAL';
  const Class = classes.get(exitCodes[known]) ?? CandlewickError;
  return new Class(known, message, hint, cause === undefined ? undefined : { cause });
}
