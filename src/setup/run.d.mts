export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Text for the program's stdin; without it, stdin is empty. */
  input?: string;
  /** Aborting it stops the program and everything that it started. */
  signal?: AbortSignal;
  /** Milliseconds after which the program is stopped. */
  timeout?: number;
  /** Called for each line printed that is not blank. */
  onLine?: (line: string) => void;
}

export interface RunResult {
  /** Exit status; null where the program could not be started or ended by a signal. */
  code: number | null;
  /** What it printed on stdout and stderr, in the order it came. */
  output: string;
  stdout: string;
  /** Why it could not be started. */
  error?: Error;
  /** True where `signal` stopped it. */
  stopped: boolean;
}

/** Runs a program and keeps what it prints. Never throws. */
export function run(command: string, args: string[], options?: RunOptions): Promise<RunResult>;
