/** The runs below a directory: what became of them, and what differs between them. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readRun } from './summary.js';
import type { Run } from './summary.js';

export { compareRuns } from './compare.js';
export type { Comparison, ConfigDifference } from './compare.js';
export { readRun } from './summary.js';
export type { Run, RunState, RunSummary } from './summary.js';

/** Folders of folders of runs are looked into so deep. */
const DEPTH = 3;

/** The runs at and below `directory`, newest first. A run is not searched for others. */
export async function findRuns(directory: string, depth = DEPTH): Promise<Run[]> {
  const own = await readRun(directory);
  if (own !== null) return [own];
  if (depth === 0) return [];
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const below = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'));
  const found = await Promise.all(below.map(({ name }) => findRuns(join(directory, name), depth - 1)));
  return found.flat().sort((a, b) => b.summary.updated - a.summary.updated);
}
