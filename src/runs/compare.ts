import { isDeepStrictEqual } from 'node:util';
import type { Run, RunSummary } from './summary.js';

/** A key in which configurations differ, with the value of each run; undefined where one does not have it. */
export interface ConfigDifference {
  key: string;
  values: unknown[];
}

export interface Comparison {
  runs: RunSummary[];
  /** In the order of the first configuration. Where a run is written to is no difference. */
  differences: ConfigDifference[];
}

/** What differs between runs, and how far each has come. */
export function compareRuns(runs: readonly Run[]): Comparison {
  const flat = runs.map(({ config }) => flatten(config));
  const keys = [...new Set(flat.flatMap((values) => [...values.keys()]))].filter((key) => key !== 'output');
  const differences = keys
    .map((key) => ({ key, values: flat.map((values) => values.get(key)) }))
    .filter(({ values }) => values.some((value) => !isDeepStrictEqual(value, values[0])));
  return { runs: runs.map(({ summary }) => summary), differences };
}

/** Values by dotted key; a list is one value. */
function flatten(value: Record<string, unknown>, before = ''): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (const [name, inner] of Object.entries(value)) {
    const key = `${before}${name}`;
    if (typeof inner === 'object' && inner !== null && !Array.isArray(inner)) {
      for (const entry of flatten(inner as Record<string, unknown>, `${key}.`)) found.set(...entry);
    } else found.set(key, inner);
  }
  return found;
}
