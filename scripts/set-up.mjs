/** From a fresh clone to something that runs; a second time, only what has changed. */
import { fileURLToPath } from 'node:url';
import { SetupError } from '../src/setup/python.mjs';
import { bold, duration, fail, line, part } from './output.mjs';
import * as parts from './parts.mjs';
import { checkPrerequisites } from './prerequisites.mjs';

/** The clone. */
export const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * Ends the process where something is missing or fails, or at a signal.
 *
 * @returns {Promise<{ env: NodeJS.ProcessEnv }>} the environment for what runs next
 */
export async function setUp() {
  const started = performance.now();
  const stop = new AbortController();
  let stoppedBy = 0;
  // npm hands a Ctrl+C on that the terminal has sent here already: each handler must bear being called twice.
  const interrupted = () => {
    stoppedBy ||= 130;
    stop.abort();
  };
  const terminated = () => {
    stoppedBy ||= 143;
    stop.abort();
  };
  process.on('SIGINT', interrupted).on('SIGTERM', terminated);

  line(bold('set-up'));
  const { found, missing } = await checkPrerequisites(root, process.env);
  if (missing.length > 0) fail(missing, 3);
  part('tools', found.join(', '));

  const work = { root, env: process.env, signal: stop.signal };
  let first = null;
  const guard = (promise) =>
    promise.catch((error) => {
      // The first failure is the one to tell; the rest end because of it.
      first ??= error;
      stop.abort();
      return null;
    });
  const packages = parts.npmPackages(work);
  const crates = parts.crates(work);
  const [python] = await Promise.all([
    guard(parts.pythonEnvironment(work)),
    guard(packages.then(() => parts.typescript(work))),
    guard(Promise.all([packages, crates]).then(() => parts.native(work))),
  ]);
  process.off('SIGINT', interrupted).off('SIGTERM', terminated);
  if (stoppedBy)
    fail([{ message: 'stopped', hint: 'run it again: it goes on from what is finished' }], stoppedBy);
  if (first) {
    if (!(first instanceof SetupError)) throw first;
    fail([first], first.exitCode ?? 3);
  }
  part('set-up', `done in ${duration(performance.now() - started)}`);
  // Set by us, so that no other environment that happens to be active takes its place.
  return { env: { ...process.env, CANDLEWICK_PYTHON: python } };
}
