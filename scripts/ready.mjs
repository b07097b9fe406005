/** Runs the checks one after the other, all of them, and ends with `N passed, N failed`. */
import { run } from '../src/setup/run.mjs';
import { checks, longChecks } from './checks.mjs';
import { bold, duration, line, part } from './output.mjs';
import { root, setUp } from './set-up.mjs';

/**
 * @param {string[]} args words; without any every check runs, else those whose name contains one of them. `--full`: the
 *   long checks instead
 */
export async function main(args) {
  const only = args.filter((arg) => arg !== '--full');
  const { env } = await setUp();
  const stop = new AbortController();
  let stoppedBy = 0;
  process.on('SIGINT', () => {
    stoppedBy ||= 130;
    stop.abort();
  });
  process.on('SIGTERM', () => {
    stoppedBy ||= 143;
    stop.abort();
  });

  const wanted = (args.includes('--full') ? longChecks : checks)(root, env).filter(
    ({ name }) => only.length === 0 || only.some((word) => name.includes(word)),
  );
  line(bold('checks'));
  const sum = { passed: 0, failed: 0, skipped: 0 };
  for (const check of wanted) {
    const count = await runCheck(check, env, stop.signal);
    if (stoppedBy) break;
    sum.passed += count.passed;
    sum.failed += count.failed;
    sum.skipped += count.skipped;
  }
  const skipped = sum.skipped > 0 ? `, ${sum.skipped} skipped` : '';
  process.stdout.write(`${sum.passed} passed, ${sum.failed} failed${skipped}\n`);
  process.exit(stoppedBy || (sum.failed > 0 || sum.passed === 0 ? 1 : 0));
}

/**
 * @param {import('./checks.mjs').Check} check
 * @param {NodeJS.ProcessEnv} env
 * @param {AbortSignal} signal
 */
export async function runCheck(check, env, signal) {
  const started = performance.now();
  const result = await run(check.command, check.args, {
    cwd: root,
    env: { ...env, ...check.env, NO_COLOR: '1', CARGO_TERM_COLOR: 'never' },
    signal,
  });
  const ok = result.code === 0;
  let count = { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
  let trouble = result.error?.message ?? '';
  if (check.count) {
    try {
      count = check.count(result.output);
    } catch (error) {
      // The runner ended before it wrote its report.
      count = { passed: 0, failed: 0, skipped: 0 };
      trouble ||= `no count of its tests: ${error.message}`;
    }
    // A runner that failed without a failing test (it did not compile, say) is a failure all the same,
    // and so is one that found no tests.
    if (count.failed === 0 && (!ok || count.passed === 0)) count.failed = 1;
  }
  const took = duration(performance.now() - started);
  const tests = check.count ? ` (${count.passed} passed, ${count.failed} failed)` : '';
  part(check.name, `${count.failed === 0 ? 'ok' : 'FAILED'}${tests} in ${took}`);
  if (count.failed > 0 && !signal.aborted) {
    line(`--- ${[check.command, ...check.args].join(' ')}`);
    line(`${result.output.trimEnd()}${trouble ? `\n${trouble}` : ''}`);
    line('---');
  }
  return count;
}
