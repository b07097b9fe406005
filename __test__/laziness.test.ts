/** What an import loads, and what `--help` does. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { verbs } from '../src/cli/verbs.js';
import { isBuilt } from './support/program.js';
import { repository } from './support/python.js';

function node(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: repository, encoding: 'utf8' });
  return { status, stdout, lines: stderr.split('\n') };
}

/** Prints the URL of every module that is loaded. */
const hook = `export async function load(url, context, next) {
  process._rawDebug('loaded ' + url);
  return next(url, context);
}`;
const tracing = [
  '--import',
  `data:text/javascript,${encodeURIComponent(
    `import { register } from 'node:module'; register('data:text/javascript,' + ${JSON.stringify(encodeURIComponent(hook))});`,
  )}`,
];

const modulesOf = (lines: readonly string[]) =>
  lines.flatMap((line) => /^loaded .*\/(dist\/.*|node_modules\/[^/]+)/.exec(line)?.[1] ?? []);

describe.skipIf(!isBuilt)('importing the package', () => {
  it('loads no native code, starts no process and keeps nothing open until something is used', () => {
    const program = `
      import child_process from 'node:child_process';
      import { syncBuiltinESMExports } from 'node:module';
      const seen = [];
      process.dlopen = () => seen.push('dlopen');
      for (const name of ['spawn', 'exec', 'execFile', 'fork', 'spawnSync', 'execSync', 'execFileSync'])
        child_process[name] = () => seen.push(name);
      syncBuiltinESMExports();
      const { HuggingFaceStreamingCorpus, Tokenizer } = await import('candlewick');
      new HuggingFaceStreamingCorpus('sample');
      // Its own output is a pipe, and the files that were read for the import may still be closing.
      const idle = seen.length === 0 && process.getActiveResourcesInfo().every((name) => name === 'PipeWrap' || name.endsWith('Req'));
      // The same eyes see what it takes to use something.
      await Tokenizer.fromFile('nothing').catch(() => undefined);
      console.log(JSON.stringify({ idle, seen }));
    `;
    const { status, stdout, lines } = node('--input-type=module', '--eval', program);
    expect(status, lines.join('\n')).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ idle: true, seen: ['dlopen'] });
  });
});

describe('candlewick --help', () => {
  it.skipIf(!isBuilt)('loads no verb', () => {
    const { status, stdout, lines } = node(...tracing, join(repository, 'bin/candlewick.js'), '--help');
    expect(status).toBe(0);
    expect(stdout).toContain('Usage: candlewick');
    expect(new Set(modulesOf(lines))).toEqual(
      new Set([
        'dist/cli/index.js',
        'dist/cli/failures.js',
        'dist/cli/terminal.js',
        'dist/cli/verbs.js',
        'dist/errors.js',
        'node_modules/commander',
      ]),
    );
  });

  it.each(verbs)('says of $name what it is', async (verb) => {
    const command = await verb.load();
    expect({
      name: command.name(),
      description: command.description(),
      options: command.options.length > 0,
      words: command.registeredArguments
        .map((one) => {
          const word = `${one.name()}${one.variadic ? '...' : ''}`;
          return one.required ? `<${word}>` : `[${word}]`;
        })
        .join(' '),
    }).toEqual({
      name: verb.name,
      description: verb.description,
      options: verb.options,
      words: verb.words,
    });
  });
});
