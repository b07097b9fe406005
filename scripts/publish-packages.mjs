/**
 * Publishes what `stage-packages.mjs` laid out: `node scripts/publish-packages.mjs STAGED`. The platforms' packages come
 * first, so that nobody can install the one that wants them before they are there. What is published already is left
 * alone: after a failure, the same command goes on. Nothing begins where the gate finds a fault.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run } from '../src/setup/run.mjs';
import { npmCommand } from './parts.mjs';
import { gate } from './release-gate.mjs';
import { packageName, targets } from './targets.mjs';

const [folder] = process.argv.slice(2);
if (folder === undefined) {
  process.stderr.write('usage: node scripts/publish-packages.mjs STAGED\n');
  process.exit(2);
}
const staged = resolve(folder);
const wrong = gate(staged);
if (wrong.length > 0) {
  process.stderr.write(wrong.map((line) => `error: ${line}\n`).join(''));
  process.exit(1);
}
const { name, version } = JSON.parse(readFileSync(join(staged, 'candlewick/package.json'), 'utf8'));
for (const one of [...targets.map(packageName), name]) {
  const seen = await npm('view', `${one}@${version}`, 'version');
  if (seen.code === 0 && seen.stdout.trim() === version) {
    process.stdout.write(`${one}@${version} is published already\n`);
    continue;
  }
  const result = await npm('publish', join(staged, one));
  process.stdout.write(result.output);
  if (result.code !== 0) {
    process.stderr.write(`error: ${one}@${version} was not published; the same command goes on from there\n`);
    process.exit(1);
  }
}

function npm(...args) {
  const [command, first] = npmCommand(process.env);
  return run(command, [...first, ...args]);
}
