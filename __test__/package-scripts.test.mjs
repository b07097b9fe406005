/** The scripts behind `npm test` and CI: they must not report success where there is none. */
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { countCargo, countVitest } from '../scripts/checks.mjs';
import { complete, platformOf } from '../scripts/complete-lockfile.mjs';
import { runCheck } from '../scripts/ready.mjs';
import { digest, Stamp } from '../scripts/stamp.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'candlewick-scripts-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('a check', () => {
  const check = (script, count) =>
    runCheck(
      { name: 'probe', command: process.execPath, args: ['-e', script], count },
      process.env,
      new AbortController().signal,
    );

  it('without tests counts as one', async () => {
    expect(await check('')).toEqual({ passed: 1, failed: 0, skipped: 0 });
    expect(await check('process.exit(2)')).toEqual({ passed: 0, failed: 1, skipped: 0 });
  });

  it('counts the tests that its runner printed', async () => {
    const output = [
      'test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out',
      'test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out',
    ].join('\n');
    const script = `console.log(${JSON.stringify(output)}); process.exit(101)`;
    expect(await check(script, countCargo)).toEqual({ passed: 15, failed: 2, skipped: 1 });
  });

  it('that does not even compile fails, and so does one that finds no tests', async () => {
    expect(await check('process.exit(101)', countCargo)).toMatchObject({ failed: 1 });
    expect(await check('', countCargo)).toMatchObject({ passed: 0, failed: 1 });
  });

  it('whose passing tests end in a failing exit fails', async () => {
    const script = `console.log('test result: ok. 1 passed; 0 failed; 0 ignored'); process.exit(1)`;
    expect(await check(script, countCargo)).toMatchObject({ passed: 1, failed: 1 });
  });

  it('whose report is missing fails', async () => {
    const none = () => {
      throw new Error('no report');
    };
    expect(await check('', none)).toMatchObject({ failed: 1 });
  });

  it('whose program is not there fails', async () => {
    const missing = { name: 'probe', command: join(folder, 'nothing'), args: [] };
    expect(await runCheck(missing, process.env, new AbortController().signal)).toMatchObject({ failed: 1 });
  });
});

it('a test file that cannot be loaded counts as a failure', () => {
  const report = {
    numPassedTests: 5,
    numFailedTests: 1,
    numPendingTests: 2,
    testResults: [
      { status: 'failed', assertionResults: [{}] },
      { status: 'failed', assertionResults: [] },
      { status: 'passed', assertionResults: [{}] },
    ],
  };
  expect(countVitest(report)).toEqual({ passed: 5, failed: 2, skipped: 2 });
});

describe('.ci/run', () => {
  const evaluation = (bits, alone) =>
    `echo "evaluation at step 500: loss 3.1, ${bits} bits per byte (unigram 3.1000, gzip -9 2.5)${alone}"`;
  const learnt = evaluation(2.2, '; loss 4.1 with one token of context');

  /** Runs it beside a stand-in for npm. */
  function ci(start, test) {
    const clone = join(folder, 'clone');
    for (const path of ['.ci', 'scripts']) cpSync(join(root, path), join(clone, path), { recursive: true });
    writeFileSync(join(folder, 'npm'), `#!/bin/sh\ncase "$1" in start) ${start} ;; test) ${test} ;; esac\n`);
    chmodSync(join(folder, 'npm'), 0o755);
    const { status, stdout } = spawnSync('bash', ['.ci/run'], {
      cwd: clone,
      env: { ...process.env, CI: 'true', PATH: `${folder}${delimiter}${process.env.PATH}` },
      encoding: 'utf8',
    });
    return { status, last: stdout.trimEnd().split('\n').pop() };
  }

  it('adds the start and what it learnt to the tests', () => {
    expect(ci(learnt, 'echo 40 passed, 0 failed')).toEqual({ status: 0, last: '42 passed, 0 failed' });
    expect(ci(learnt, 'echo 40 passed, 0 failed, 2 skipped')).toEqual({
      status: 0,
      last: '42 passed, 0 failed, 2 skipped',
    });
  });

  it('fails when the start fails', () => {
    const start = `${learnt}; exit 4`;
    expect(ci(start, 'echo 40 passed, 0 failed')).toEqual({ status: 1, last: '40 passed, 1 failed' });
  });

  it('fails when the model learns no more than how often tokens occur, or nothing says what it learnt', () => {
    const poor = evaluation(2.6, '; loss 4.1 with one token of context');
    expect(ci(poor, 'echo 40 passed, 0 failed')).toEqual({ status: 1, last: '41 passed, 1 failed' });
    const early = evaluation(2.2, '');
    expect(ci(early, 'echo 40 passed, 0 failed')).toEqual({ status: 1, last: '41 passed, 1 failed' });
    expect(ci('true', 'echo 40 passed, 0 failed')).toEqual({ status: 1, last: '41 passed, 1 failed' });
  });

  it('fails when the model learns little from what comes before the last token', () => {
    const short = evaluation(2.2, '; loss 3.2 with one token of context');
    expect(ci(short, 'echo 40 passed, 0 failed')).toEqual({ status: 1, last: '41 passed, 1 failed' });
  });

  it('fails when a test fails', () => {
    const test = 'echo 39 passed, 1 failed; exit 1';
    expect(ci(learnt, test)).toEqual({ status: 1, last: '41 passed, 1 failed' });
  });

  it('fails when the tests end without a count', () => {
    expect(ci(learnt, 'exit 3')).toEqual({ status: 1, last: '2 passed, 1 failed' });
    expect(ci(learnt, 'echo hello')).toEqual({ status: 1, last: '2 passed, 1 failed' });
  });

  it('fails when the tests pass and the run does not', () => {
    const test = 'echo 5 passed, 0 failed; exit 1';
    expect(ci(learnt, test)).toEqual({ status: 1, last: '7 passed, 1 failed' });
  });
});

describe('a stamp', () => {
  it('holds until an input or a result changes', () => {
    writeFileSync(join(folder, 'input'), 'a');
    writeFileSync(join(folder, 'result'), 'made');
    const stamp = () =>
      new Stamp(join(folder, 'cache/part.json'), digest(folder, ['input', 'absent'], ['v1']));
    expect(stamp().holds()).toBe(false);
    stamp().write([join(folder, 'result')]);
    expect(stamp().holds()).toBe(true);

    writeFileSync(join(folder, 'result'), 'cut');
    expect(stamp().holds()).toBe(false);
    writeFileSync(join(folder, 'result'), 'made');
    expect(stamp().holds()).toBe(true);

    writeFileSync(join(folder, 'input'), 'b');
    expect(stamp().holds()).toBe(false);
  });

  it('does not hold when it was cut short', () => {
    const stamp = new Stamp(join(folder, 'part.json'), 'digest');
    stamp.write([]);
    expect(stamp.holds()).toBe(true);
    writeFileSync(join(folder, 'part.json'), '{"dig');
    expect(stamp.holds()).toBe(false);
  });
});

describe('completing the lock file', () => {
  it('reads the platform off a name', () => {
    expect(platformOf('@oxlint/binding-linux-arm64-musl')).toEqual({
      cpu: ['arm64'],
      libc: ['musl'],
      os: ['linux'],
    });
    expect(platformOf('@napi-rs/tar-win32-ia32-msvc')).toEqual({ cpu: ['ia32'], os: ['win32'] });
    expect(platformOf('@napi-rs/tar-wasm32-wasi')).toEqual({ cpu: ['wasm32'] });
    expect(platformOf('fsevents')).toBeNull();
  });

  it('adds what is missing once and leaves the rest alone', () => {
    const lock = {
      packages: {
        '': {},
        'node_modules/tool': {
          dev: true,
          optionalDependencies: { 'tool-darwin-arm64': '1.2.3', 'tool-linux-x64': '1.2.3' },
        },
        'node_modules/tool-linux-x64': { version: '1.2.3', integrity: 'sha512-x' },
      },
    };
    expect(complete(lock)).toEqual(['tool-darwin-arm64']);
    expect(lock.packages['node_modules/tool-darwin-arm64']).toEqual({
      version: '1.2.3',
      cpu: ['arm64'],
      dev: true,
      optional: true,
      os: ['darwin'],
    });
    expect(lock.packages['node_modules/tool-linux-x64'].integrity).toBe('sha512-x');
    expect(complete(lock)).toEqual([]);
  });
});
