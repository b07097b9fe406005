import type { CudaReport } from '../cuda/index.js';

/** What a check found. */
export interface Check {
  /** What was looked at, such as `python`. */
  name: string;
  /** `fail`: training will not work, or not with what this check is about. */
  status: 'ok' | 'warn' | 'fail';
  /** What was found, in a line. */
  detail: string;
  /** What to do about it; null where nothing needs doing. */
  cure: string | null;
}

/** What `candlewick doctor` may be told, and what a test puts in the place of this machine. */
export interface DoctorOptions {
  /** Directory that a run will be written to. */
  output?: string;
  /** What the user asked for (`--python`). */
  python?: string;
  env?: NodeJS.ProcessEnv;
  /** Folder whose `.venv` is looked at. */
  cwd?: string;
  /** Where /proc and /sys are. */
  root?: string;
  /** Loads the native binding and returns its version; throws what it fails with. */
  loadBinding?: () => string;
  /** Looks for GPUs; rejects where the binding does not load. */
  look?: () => Promise<CudaReport>;
  /** Milliseconds that the hub may take. */
  hubTimeout?: number;
}

export const ok = (name: string, detail: string): Check => ({ name, status: 'ok', detail, cure: null });
export const warn = (name: string, detail: string, cure: string): Check => ({
  name,
  status: 'warn',
  detail,
  cure,
});
export const fail = (name: string, detail: string, cure: string): Check => ({
  name,
  status: 'fail',
  detail,
  cure,
});
