import { isatty } from 'node:tty';

/** Those that the process began with. */
let terminals: number[] = [];

/**
 * Lets the process end in peace when its terminal is gone. Node gives every terminal that it began with its settings back
 * at the end, and takes one that refuses for a bug of its own: it aborts, with a core file. The signal that told of the
 * loss ends the process before that, with the same exit code for a shell.
 */
export function outliveTerminal(): void {
  if (terminals.length > 0) return;
  terminals = [0, 1, 2].filter((fd) => isatty(fd));
  if (terminals.length > 0) process.on('exit', endBySignal);
}

function endBySignal(): void {
  if (terminals.every((fd) => isatty(fd))) return;
  process.removeAllListeners('SIGHUP');
  process.kill(process.pid, 'SIGHUP');
}
