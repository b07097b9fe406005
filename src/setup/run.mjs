/**
 * Runs a program and keeps what it prints. Plain JavaScript without dependencies: set-up needs it before anything
 * is installed or compiled.
 */
import { spawn } from 'node:child_process';

const windows = process.platform === 'win32';

/**
 * Runs `command` with the text of stdout and stderr kept in the order it came. Never throws: a program that is not
 * there ends with `code` null and `error`.
 *
 * The program leads its own process group, so that stopping it stops the compilers it started too, and a Ctrl+C in
 * the terminal reaches it once, by way of `signal`, and not a second time from the terminal.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {import('./run.mjs').RunOptions} [options]
 * @returns {Promise<import('./run.mjs').RunResult>}
 */
export function run(command, args, options = {}) {
  const { cwd, env, input, signal, timeout, onLine } = options;
  return new Promise((resolve) => {
    let output = '';
    let stdout = '';
    let rest = '';
    let timer;
    if (signal?.aborted) {
      resolve({ code: null, output, stdout, stopped: true });
      return;
    }
    const child = spawn(command, args, {
      cwd,
      env: env ?? process.env,
      stdio: [input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      detached: !windows,
      // npm and its relatives are .cmd files there, which only a shell can start.
      shell: windows && /\.cmd$/i.test(command),
    });
    const stop = () => stopGroup(child);
    const take = (text) => {
      output += text;
      if (!onLine) return;
      const lines = (rest + text).split(/\r?\n|\r/);
      rest = lines.pop() ?? '';
      for (const line of lines) if (line.trim()) onLine(line);
    };
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
      take(text);
    });
    child.stderr.setEncoding('utf8').on('data', take);
    if (input !== undefined) {
      // A program that does not read its input closes the pipe; its exit code tells the rest.
      child.stdin.on('error', () => {});
      child.stdin.end(input);
    }
    signal?.addEventListener('abort', stop, { once: true });
    if (timeout) timer = setTimeout(stop, timeout);
    const end = (code, error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', stop);
      resolve({ code, output, stdout, error, stopped: signal?.aborted ?? false });
    };
    child.on('error', (error) => end(null, error));
    child.on('close', (code) => end(code, undefined));
  });
}

function stopGroup(child) {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    if (windows) child.kill();
    else process.kill(-child.pid, 'SIGTERM');
  } catch (error) {
    // It ended between the check and the signal.
    if (error.code !== 'ESRCH') throw error;
  }
}
