/** The commands, links and keys of the documents, held against what is there. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const documents = [
  'README.md',
  'docs/guide.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'bench/RESULTS.md',
];
const read = (name: string): string => readFileSync(join(root, name), 'utf8');
const manifest = JSON.parse(read('package.json')) as {
  bin: Record<string, string>;
  scripts: Record<string, string>;
};

/** Lines of the fenced blocks in one language. */
function fenced(name: string, language: string): string[] {
  const blocks = read(name).matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'));
  return [...blocks].flatMap(([, block]) => (block as string).trimEnd().split('\n'));
}

const commands = documents.flatMap((name) => fenced(name, 'sh').map((line) => ({ name, line })));
const npx = commands
  .map(({ name, line }) => ({ name, line, words: words(line) }))
  .filter(
    ({ words: [first, program] }) => first === 'npx' && program !== undefined && program in manifest.bin,
  );

function words(line: string): string[] {
  return [...line.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '');
}

/** What a program of ours prints for `--help`, once a command. */
const helps = new Map<string, string>();
function help(program: string, verb: string[]): string {
  const key = [program, ...verb].join(' ');
  const known = helps.get(key);
  if (known !== undefined) return known;
  const file = join(root, manifest.bin[program] as string);
  const result = spawnSync(process.execPath, [file, ...verb, '--help'], { encoding: 'utf8' });
  expect(result.status, `${key} --help: ${result.stderr}`).toBe(0);
  helps.set(key, result.stdout);
  return result.stdout;
}

describe('commands of the documents', () => {
  it('are there to be tested', () => {
    expect(npx.length).toBeGreaterThan(3);
  });

  it.each(npx)('$line', ({ words: [, program, ...rest] }) => {
    // `tokenizer` and `data` have verbs of their own.
    const words = ['tokenizer', 'data'].includes(rest[0] ?? '') ? 2 : 1;
    const verb = program === 'candlewick' ? rest.slice(0, words) : [];
    const text = help(program as string, verb);
    for (const word of rest) {
      if (word.startsWith('--')) expect(text).toMatch(new RegExp(`${word}\\b`));
      if (word.startsWith('configs/')) expect(existsSync(join(root, word)), word).toBe(true);
    }
  });

  it('npm scripts are scripts of package.json', () => {
    const text = documents.map(read).join('\n');
    const names = [...text.matchAll(/\bnpm (?:run ([\w:]+)|(start|test)\b)/g)].map(([, a, b]) => a ?? b);
    expect(names).toContain('ready');
    for (const name of new Set(names)) expect(manifest.scripts).toHaveProperty(name as string);
  });
});

it('what the examples import is exported', async () => {
  const exported = Object.keys(await import('../src/index.js'));
  const examples = documents.flatMap((name) => fenced(name, 'ts')).join('\n');
  const imported = [...examples.matchAll(/import \{ ([^}]+) \} from 'candlewick'/g)].flatMap(([, names]) =>
    (names as string).split(', '),
  );
  expect(imported.length).toBeGreaterThan(0);
  expect(exported).toEqual(expect.arrayContaining(imported));
});

describe('links of the documents', () => {
  const links = documents.flatMap((name) =>
    [...read(name).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => ({ name, target: target as string })),
  );

  it.each(links.filter(({ target }) => !/^[a-z]+:/.test(target)))('$name: $target', ({ name, target }) => {
    const [file, heading] = target.split('#') as [string, string | undefined];
    const found = file === '' ? join(root, name) : join(root, dirname(name), file);
    expect(existsSync(found)).toBe(true);
    if (heading) {
      const headings = [...readFileSync(found, 'utf8').matchAll(/^#+ (.+)$/gm)].map(([, text]) =>
        (text as string)
          .toLowerCase()
          .replace(/[^\w\- ]/g, '')
          .replaceAll(' ', '-'),
      );
      expect(headings).toContain(heading);
    }
  });
});

it('every error code stands in the README under its exit code', () => {
  const table = read('src/errors.ts').matchAll(/^ {2}([A-Z_]+): (\d+),$/gm);
  const rows = read('README.md').match(/^\| \d+.*$/gm) ?? [];
  for (const [, code, exit] of table) {
    if (code === 'INTERNAL') continue;
    const row = rows.find((line) => line.includes(`\`${code}\``));
    expect(row, code).toMatch(new RegExp(`^\\| (\\d+, )?${exit}\\b|^\\| ${exit}\\b`));
  }
});
