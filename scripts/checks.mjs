/**
 * Everything that must hold before a change lands, in the order that fails early and builds little twice.
 *
 * A check is a command; `count` reads how many tests it ran from what it printed, and without one it counts as one.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * @typedef {object} Check
 * @property {string} name
 * @property {string} command
 * @property {string[]} args
 * @property {Record<string, string>} [env] added to the environment
 * @property {(output: string) => { passed: number, failed: number, skipped: number }} [count]
 */

/**
 * @param {string} root of the clone
 * @param {NodeJS.ProcessEnv} env
 * @returns {Check[]}
 */
export function checks(root, env) {
  const node = process.execPath;
  const bin = (path) => join(root, 'node_modules', path);
  const target = env.CARGO_TARGET_DIR ?? join(root, 'target');
  const vitestReport = join(root, 'node_modules/.cache/candlewick/vitest.json');
  const cudaReport = join(root, 'node_modules/.cache/candlewick/vitest-cuda.json');
  return [
    { name: 'format: Rust', command: 'cargo', args: ['fmt', '--all', '--', '--check'] },
    {
      name: 'format: TypeScript',
      command: node,
      args: [bin('@biomejs/biome/bin/biome'), 'format', '.'],
    },
    { name: 'lint: TypeScript', command: node, args: [bin('oxlint/bin/oxlint'), '--deny-warnings'] },
    {
      name: 'types: src',
      command: node,
      args: [bin('typescript/bin/tsc'), '-p', 'tsconfig.json', '--noEmit'],
    },
    {
      name: 'types: tests',
      command: node,
      args: [bin('typescript/bin/tsc'), '-p', 'tsconfig.test.json', '--noEmit'],
    },
    {
      name: 'lint: Rust',
      command: 'cargo',
      args: ['clippy', '--locked', '--workspace', '--all-targets', '--', '-D', 'warnings'],
    },
    {
      name: 'tests: Rust',
      command: 'cargo',
      // The binding wants Node's symbols, which a test program does not have.
      args: ['test', '--locked', '--workspace', '--exclude', 'candlewick-node', '--no-fail-fast'],
      count: countCargo,
    },
    {
      name: 'tests: loom',
      command: 'cargo',
      args: ['test', '--locked', '--release', '-p', 'candlewick-feed', '--test', 'loom_ring'],
      // A folder of its own: the flag would otherwise rebuild everything, here and the next time.
      env: {
        CARGO_TARGET_DIR: join(target, 'loom'),
        CARGO_PROFILE_RELEASE_LTO: 'off',
        RUSTFLAGS: `${env.RUSTFLAGS ?? ''} --cfg loom`.trim(),
      },
      count: countCargo,
    },
    {
      name: 'tests: vitest',
      command: node,
      args: [
        bin('vitest/vitest.mjs'),
        'run',
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${vitestReport}`,
      ],
      count: () => countVitest(JSON.parse(readFileSync(vitestReport, 'utf8'))),
    },
    { name: 'cuda: build', command: node, args: [join(root, 'scripts/build-cuda.mjs')] },
    { name: 'cuda: resources', command: node, args: [join(root, 'scripts/build-cuda.mjs'), '--resources'] },
    { name: 'cuda: lint', command: node, args: [join(root, 'scripts/build-cuda.mjs'), '--lint'] },
    {
      name: 'cuda: tests of Rust',
      command: node,
      args: [join(root, 'scripts/build-cuda.mjs'), '--test'],
      count: countCargo,
    },
    {
      name: 'cuda: vitest',
      command: node,
      args: [
        bin('vitest/vitest.mjs'),
        'run',
        '--config=vitest.cuda.config.ts',
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${cudaReport}`,
      ],
      count: () => countVitest(JSON.parse(readFileSync(cudaReport, 'utf8'))),
    },
    { name: 'package: publint', command: node, args: [bin('publint/src/cli.js'), '--strict'] },
    { name: 'package: installed', command: node, args: [join(root, 'scripts/installed-package.mjs')] },
    { name: 'workflows', command: node, args: [join(root, 'scripts/workflows.mjs')] },
  ];
}

/**
 * What is too long for every change: `npm run ready:full`. Without the data beside the repository, the tests that read
 * it use what they use in `npm test`.
 *
 * @param {string} root of the clone
 * @param {NodeJS.ProcessEnv} env
 * @returns {Check[]}
 */
export function longChecks(root, env) {
  const data = ['web-text', 'multilingual-code'].map((name) => join(root, '../shared/data', name));
  const documents = join(root, 'node_modules/.cache/candlewick/shared.documents');
  const python = env.CANDLEWICK_PYTHON ?? join(root, '.venv/bin/python');
  const identity = ['test', '--locked', '--release', '-p', 'candlewick-tokenizer', '--test'];
  const flat = {
    name: 'ids: documents',
    command: python,
    args: [join(root, 'bench/tokenizer/documents.py'), documents, ...data],
  };
  const there = data.every((folder) => existsSync(folder));
  return [
    ...(there ? [flat] : []),
    {
      name: 'ids: random texts',
      command: 'cargo',
      args: [...identity, 'identity'],
      // For each of eleven tokenizers: 10^7 in all.
      env: { CANDLEWICK_ROUNDS: '910000' },
      count: countCargo,
    },
    {
      name: 'ids: everywhere',
      command: 'cargo',
      // At every border, on every code point, on all the data.
      args: [...identity, 'identity_everywhere'],
      env: { CANDLEWICK_LONG: '1', ...(there ? { CANDLEWICK_DOCUMENTS: documents } : {}) },
      count: countCargo,
    },
    {
      name: 'losses: beside PyTorch',
      command: 'cargo',
      args: [
        'test',
        '--locked',
        '--release',
        '-p',
        'candlewick-train',
        '--test',
        'recipe',
        '--',
        '--nocapture',
      ],
      env: { CANDLEWICK_LONG: '1' },
      count: countCargo,
    },
    {
      name: 'memory: encoding',
      command: process.execPath,
      args: [join(root, 'bench/tokenizer/memory.mjs')],
    },
    {
      name: 'leaks: 200 corpora, 50 trainers',
      command: process.execPath,
      args: [join(root, 'node_modules/vitest/vitest.mjs'), 'run', '__test__/leaks.test.ts'],
      env: { CANDLEWICK_LEAKS: 'full' },
    },
    {
      name: 'container',
      command: process.execPath,
      args: [join(root, 'scripts/container.mjs')],
    },
  ];
}

/** Sums the lines that each test program of cargo ends with. */
export function countCargo(output) {
  const sum = { passed: 0, failed: 0, skipped: 0 };
  const closing = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gm;
  for (const [, passed, failed, ignored] of output.matchAll(closing)) {
    sum.passed += Number(passed);
    sum.failed += Number(failed);
    sum.skipped += Number(ignored);
  }
  return sum;
}

/** A file that cannot be loaded has no tests to fail: it counts as one that failed. */
export function countVitest(report) {
  const broken = report.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken.length,
    skipped: report.numPendingTests + (report.numTodoTests ?? 0),
  };
}
