/** The pages under docs/ that are made from the sources, and the examples in them. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { apiReference } from '../scripts/api-reference.mjs';
import { configurationReference } from '../scripts/configuration-reference.mjs';
import { trainOptions } from '../src/cli/options.ts';
import { leafPaths, runSchema } from '../src/config/index.ts';
import { isBuilt } from './support/program.ts';
import { python, repository } from './support/python.ts';

const read = (path) => readFileSync(join(repository, path), 'utf8');

describe('docs/configuration.md', () => {
  it('is what the schema says now (npm run docs)', () => {
    const schema = z.toJSONSchema(runSchema, { io: 'input' });
    expect(read('docs/configuration.md')).toBe(configurationReference(schema, trainOptions));
  });

  it('has every key, each with words', () => {
    const rows = read('docs/configuration.md').match(/^\| `.*$/gm) ?? [];
    const keys = leafPaths();
    expect(keys.length).toBeGreaterThan(60);
    for (const key of keys) {
      const row = rows.find((line) => new RegExp(`^\\| \`${key}\``).test(line));
      const cells = row?.split(/(?<!\\)\|/);
      expect(cells?.at(-2), key).toMatch(/[a-z]{3}/);
    }
  });
});

describe('docs/api.md', () => {
  it.skipIf(!isBuilt)('is what the declarations and the examples say now (npm run docs)', () => {
    expect(read('docs/api.md')).toBe(apiReference(repository));
  });

  it('explains every export, and has no any', async () => {
    const page = read('docs/api.md');
    for (const name of Object.keys(await import('../src/index.ts'))) {
      expect(page).toContain(`### \`${name}\`\n`);
    }
    expect(page.match(/^### `\w+`\n\n```/gm), 'without a word').toBeNull();
    const code = [...page.matchAll(/^```ts\n([^]*?)^```/gm)].map(([, text]) => text).join('');
    expect(code.replace(/\/\*\*[^]*?\*\//g, '')).not.toMatch(/\bany\b/);
  });
});

describe.skipIf(!isBuilt)('an example', () => {
  // In this order: generation continues what training has made.
  const order = ['corpus', 'tokenizer', 'loader', 'mixing', 'training', 'generation'];
  const says = {
    corpus: /^100 documents have \d{5,} characters\na batch has 20 documents\n$/,
    tokenizer: /^\d+ of 1000 tokens: [\d ]+\n"def main\(\):\\n {4}return 0\\n"\n2 lists of ids\n$/,
    loader: /^resumed at the fourth batch: the same stream\n$/,
    mixing: /^20 batches of 2 sources\n$/,
    training:
      /saved run\/checkpoints\/step-0000000\d\n[^]*stopped at step \d+\n[^]*(limit|stopped) at step 20\n$/,
    generation: /^[^]+\nmodel\/ has \d+ parameters\n$/,
  };
  const folder = mkdtempSync(join(tmpdir(), 'candlewick-examples-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has a test, each', () => {
    const files = readdirSync(join(repository, 'examples')).sort();
    expect(files).toEqual(order.map((name) => `${name}.mjs`).sort());
  });

  it.each(order)('%s.mjs runs, and ends by itself', async (name) => {
    const child = spawn(process.execPath, [join(repository, 'examples', `${name}.mjs`)], {
      cwd: folder,
      env: { ...process.env, CANDLEWICK_PYTHON: python },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    const [code, signal] = await once(child, 'close');
    expect({ code, signal }, stderr).toEqual({ code: 0, signal: null });
    expect(stdout).toMatch(says[name]);
  });
});
