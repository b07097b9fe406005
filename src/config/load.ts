import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { errorFor } from '../errors.js';
import { check } from './check.js';
import { resolve } from './resolve.js';
import type { Decision, ResolvedConfig } from './resolve.js';
import type { RunConfig } from './schema.js';
import { ConfigSource } from './source.js';
import type { Override } from './source.js';
import { oneSourceKeys } from './sources.js';

/** A configuration that is ready to run. */
export interface LoadedConfig {
  /** What was written, checked, with its defaults; `auto` still stands. */
  given: RunConfig;
  /** Everything decided. */
  config: ResolvedConfig;
  decisions: Decision[];
  warnings: string[];
  /** The run directory. */
  output: string;
  /** The text that was read, after a comment that names it and what was put over it. */
  input: string;
}

/** Reads and checks a configuration file; flags override its keys. Throws CONFIG_INVALID. */
export async function loadConfig(file: string, overrides: readonly Override[] = []): Promise<LoadedConfig> {
  let text: string;
  try {
    text = await readFile(placeOf(file), 'utf8');
  } catch (cause) {
    const reason = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause);
    const message = reason === 'ENOENT' ? 'there is no such file' : reason;
    throw errorFor(
      'CONFIG_INVALID',
      `${file}: ${message}`,
      'name a YAML file; configs/quickstart.yaml is one',
      cause,
    );
  }
  return parseConfig(text, file, overrides);
}

/** `configs/…` means the package's own where the working directory has none: commands read the same everywhere. */
function placeOf(file: string): string {
  if (existsSync(file) || !/^(\.\/)?configs\//.test(file)) return file;
  return fileURLToPath(new URL(`../../${file}`, import.meta.url));
}

/** Checks a configuration in YAML; `name` is how messages call it. Throws CONFIG_INVALID. */
export function parseConfig(text: string, name: string, overrides: readonly Override[] = []): LoadedConfig {
  const given = check(new ConfigSource(text, name, overrides));
  const resolved = resolve(given);
  const output = given.output ?? join('runs', basename(name, extname(name)));
  const over = overrides.map(({ key, value, flag }) => `#   ${key}: ${JSON.stringify(value)} (${flag})\n`);
  const put = over.length === 0 ? '' : `# and over it:\n${over.join('')}`;
  const input = `# ${name}\n${put}${text}`;
  return { given, ...resolved, config: { ...resolved.config, output }, output, input };
}

/** Checks a configuration given as values, as programs do. Throws CONFIG_INVALID. */
export function configFromValues(values: unknown, overrides: readonly Override[] = []): LoadedConfig {
  return parseConfig(stringify(values), 'config', overrides);
}

/** A configuration as the text of a `config.yaml`: with one source its keys, with several `data.sources`. */
export function configToYaml(config: RunConfig): string {
  const { sources, ...data } = config.data;
  const alone = Object.entries(data).filter(([key]) => sources === null || !isOneSourceKey(key));
  const written = Object.fromEntries([...(sources === null ? [] : [['sources', sources]]), ...alone]);
  return stringify({ ...config, data: written }, { lineWidth: 110 });
}

function isOneSourceKey(key: string): boolean {
  return (oneSourceKeys as string[]).includes(key);
}
