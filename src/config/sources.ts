import { templateHint, templateProblem } from '../corpus/template.js';
import type { RunConfig } from './schema.js';
import type { ConfigSource, Problem } from './source.js';

/** The keys of a configuration with one source, and what they are where nobody gave them. */
const oneSource = {
  dataset: null,
  config_name: null,
  split: 'train',
  text_column: 'text',
  text_template: null,
  revision: null,
} as const;

/** The keys of a configuration with one source. */
export const oneSourceKeys = Object.keys(oneSource) as (keyof typeof oneSource)[];

/** What is wrong with where the data comes from. */
export function checkSources({ data }: RunConfig, source: ConfigSource): Problem[] {
  const { sources } = data;
  if (sources !== null) {
    const alone = sources.length === 1 && sources[0]?.on_exhausted === 'repeat' && data.epochs !== null;
    const message = 'a source alone is repeated by data.epochs: null';
    return [
      ...(alone ? [{ path: ['data', 'sources', 0, 'on_exhausted'], message }] : []),
      ...oneSourceKeys.flatMap((key) => beside(key, data[key], source)),
      ...sources.flatMap((one, i) => checkTemplate(one, ['data', 'sources', i])),
    ];
  }
  const missing = missingDataset(data);
  if (missing.length > 0) return missing;
  return checkTemplate(data, ['data']);
}

/** The problem of a `data` that names nothing to read. */
export function missingDataset(data: unknown): Problem[] {
  if (typeof data !== 'object' || data === null) return [];
  const given = (key: string) => (Reflect.get(data, key) ?? null) !== null;
  if (given('dataset') || given('sources')) return [];
  const hint = 'name it with data.dataset (--dataset), or several with data.sources';
  return [{ path: ['data', 'dataset'], message: 'the key is missing', hint }];
}

/** A key of one source beside `sources`. What is its default may stand: a configuration may be written out in full. */
function beside(key: keyof typeof oneSource, value: unknown, source: ConfigSource): Problem[] {
  const path = ['data', key];
  if (value === oneSource[key] && !source.isOverridden(path.join('.'))) return [];
  const message = source.isOverridden(path.join('.'))
    ? 'the configuration has several sources (data.sources), and this cannot change one of them'
    : `${key} and sources exclude each other`;
  const hint = `give each of data.sources its own ${key} (--set data.sources.0.${key}=…), or take data.sources out`;
  return [{ path, message, hint }];
}

function checkTemplate(
  { text_column, text_template }: { text_column: string; text_template: string | null },
  path: readonly PropertyKey[],
): Problem[] {
  if (text_template === null) return [];
  const problems: Problem[] = [];
  const problem = templateProblem(text_template);
  if (problem !== null) {
    const message = `${JSON.stringify(text_template)} ${problem}`;
    problems.push({ path: [...path, 'text_template'], message, hint: templateHint });
  }
  if (text_column !== 'text') {
    problems.push({
      path: [...path, 'text_column'],
      message: 'text_column and text_template exclude each other',
      hint: 'name the column in the template',
    });
  }
  return problems;
}
