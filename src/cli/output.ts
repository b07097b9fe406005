import { Progress } from '../run/index.js';

/** How a command talks: results on stdout, or JSON lines; text for people on stderr. */
export interface OutputOptions {
  json?: boolean;
  quiet?: boolean;
}

/** The one place that commands print through. */
export class Output {
  readonly json: boolean;
  readonly quiet: boolean;
  /** Text for people, on stderr. */
  readonly people: Progress;

  constructor(options: OutputOptions) {
    this.json = options.json === true;
    this.quiet = options.quiet === true;
    this.people = new Progress(process.stderr, { quiet: this.quiet });
  }

  /** One JSON object on a line of stdout, with `--json` only. */
  event(value: object): void {
    if (this.json) process.stdout.write(`${JSON.stringify(value)}\n`);
  }

  /** A result on stdout, without `--json` only. */
  result(text: string): void {
    if (!this.json) process.stdout.write(text);
  }
}

/**
 * A reader of stdout that has seen enough (`| head`) is no error. `end`: the command has no other purpose than its
 * output and ends; training goes on without it.
 */
export function ignoreClosedPipes(end: boolean): void {
  const closed = (cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'EPIPE' && cause.code !== 'EIO') throw cause;
    if (end) process.exit(0);
  };
  process.stdout.on('error', closed);
  process.stderr.on('error', (cause: NodeJS.ErrnoException) => {
    // EIO: the terminal is gone, and the run saves and stops because of it.
    if (cause.code !== 'EPIPE' && cause.code !== 'EIO') throw cause;
  });
}
