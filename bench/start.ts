/**
 * How long the programs take to answer, beside Node's own start, in pairs.
 *
 *     node --import ./scripts/typescript.mjs bench/start.ts
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const ROUNDS = 21;
const root = fileURLToPath(new URL('..', import.meta.url));
const commands: Record<string, string[]> = {
  node: ['--eval', '0'],
  'candlewick --help': ['bin/candlewick.js', '--help'],
  'candlewick --version': ['bin/candlewick.js', '--version'],
  'candlewick train --help': ['bin/candlewick.js', 'train', '--help'],
  "import 'candlewick'": ['--input-type=module', '--eval', "import 'candlewick'"],
};

const times = new Map<string, number[]>(Object.keys(commands).map((name) => [name, []]));
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, args] of Object.entries(commands)) {
    const started = performance.now();
    const { status, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
    if (status !== 0) throw new Error(`${name}: exit ${status}\n${stderr}`);
    times.get(name)?.push(performance.now() - started);
  }
}
const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
const base = median(times.get('node') ?? []);
for (const [name, values] of times) {
  const middle = median(values);
  const above = name === 'node' ? '' : `  ${(middle - base).toFixed(0)} ms above Node's own`;
  console.log(`${name.padEnd(26)}${middle.toFixed(0).padStart(5)} ms${above}`);
}
