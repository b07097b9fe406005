/**
 * `docs/api.md`, from the declarations that the compiler wrote: what `index.d.ts` exports, each with its comment and its
 * declaration as it is, in front of them the examples, which are tests. TypeScript 7 has no API for documentation tools, and
 * the compiler writes declarations in one form, so that they can be read line by line.
 */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The parts of the page: the modules of `index.d.ts` in this order, and the example that begins each. */
const parts = [
  { title: 'Corpora', module: './corpus/index.js', examples: ['corpus', 'mixing'] },
  { title: 'Tokenizers', module: './tokenizer/index.js', examples: ['tokenizer'] },
  { title: 'Batches', module: './data/index.js', examples: ['loader'] },
  { title: 'Training', module: './run/index.js', examples: ['training'] },
  { title: 'Models', module: './model/index.js', examples: ['generation'] },
  { title: 'Export', module: './export/index.js', examples: [] },
  { title: 'Configurations', module: './config/index.js', examples: [] },
  { title: 'Errors', module: './errors.js', examples: [] },
];

/** `export { … } from '…'`, with or without `type` in one place or the other. */
const passedOn = /^export (?:type )?\{([^}]*)\} from '([^']+)';$/gm;

/**
 * @param {string} root of the clone, with `dist` built
 * @returns {string}
 */
export function apiReference(root) {
  const index = readFileSync(join(root, 'dist/index.d.ts'), 'utf8');
  const modules = new Map();
  for (const [, names, module] of index.matchAll(passedOn))
    modules.set(module, [...(modules.get(module) ?? []), ...listed(names)]);
  const missing = [...modules.keys()].filter((module) => !parts.some((part) => part.module === module));
  if (missing.length > 0) throw new Error(`no part of the page is for ${missing.join(', ')}`);
  return `# Node API

<!-- Written by \`npm run docs\` from the declarations in dist and from examples/; a test holds it to them. -->

\`import { … } from 'candlewick'\`: ES modules, typed. Importing loads no native code and starts no process until something
is used. What is opened is closed by \`close()\`, or by \`await using\` where the language has it, and then the process ends by
itself. Several corpora and trainers in one process do not disturb each other. The examples run as they stand; each is a
test.

${parts.map((part) => section(root, part, modules.get(part.module) ?? [])).join('\n')}`;
}

function section(root, { title, module, examples }, names) {
  const shown = examples.map((name) => {
    const text = readFileSync(join(root, 'examples', `${name}.mjs`), 'utf8');
    return `\`\`\`js\n${text}\`\`\`\n`;
  });
  const declared = names.map((name) => {
    const { comment, code } = declarationOf(join(root, 'dist', module.replace(/\.js$/, '.d.ts')), name);
    return `### \`${name}\`\n\n${comment ? `${comment}\n\n` : ''}\`\`\`ts\n${code}\n\`\`\`\n`;
  });
  return [`## ${title}\n`, ...shown, ...declared].join('\n');
}

const listed = (names) =>
  names
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter(Boolean);

/** Follows a name through the modules that pass it on to the one that declares it. */
function declarationOf(file, name) {
  const text = readFileSync(file, 'utf8');
  const start = new RegExp(
    `^export (?:declare )?(?:abstract )?(?:class|interface|type|function|const) ${name}\\b`,
    'm',
  ).exec(text);
  if (start !== null) return declarationAt(text, start.index);
  for (const [, names, module] of text.matchAll(passedOn)) {
    const next = join(dirname(file), module.replace(/\.js$/, '.d.ts'));
    if (listed(names).includes(name) && existsSync(next)) return declarationOf(next, name);
  }
  throw new Error(`${file} exports ${name}, and nothing declares it`);
}

/** A declaration ends where a line at the margin ends it. */
function declarationAt(text, at) {
  const end = /^(?:\}.*|export .*;)$/m.exec(text.slice(at));
  const code = text
    .slice(at, at + end.index + end[0].length)
    .replace(/^export (?:declare )?/, '')
    .split('\n')
    // What only the compiler needs to know.
    .filter((line) => !/^ +(?:#private|private constructor\(.*\)|private .*);$/.test(line))
    .map((line) => line.replace(/^( {4})+/, (spaces) => ' '.repeat(spaces.length / 2)))
    .join('\n');
  const before = /\/\*\*((?:(?!\*\/)[^])*)\*\/\s*$/.exec(text.slice(0, at))?.[1] ?? '';
  const comment = before
    .split('\n')
    .map((line) => line.replace(/^\s*\*? ?/, '').trimEnd())
    .join('\n')
    .trim();
  return { comment, code };
}
