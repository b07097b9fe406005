/** The documents of local files that need no streamer: a text file is one, a line of .jsonl is one. */
import { open, readFile, stat } from 'node:fs/promises';
import { errorFor } from '../errors.js';
import type { Text } from './source.js';

/** Whether the streamer has to read it: a directory, or what is compressed or in columns. */
export async function needsStreamer(path: string): Promise<boolean> {
  const found = await stat(path).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  return found.isDirectory() || /\.(parquet|gz|zst)$/i.test(path);
}

/** The documents of a file. Throws DATASET_NOT_FOUND, COLUMN_NOT_FOUND, SOURCE_CORRUPT. */
export async function* textsOf(path: string, column: string): AsyncGenerator<Text, void, undefined> {
  try {
    if (/\.jsonl$/i.test(path)) yield* linesOf(path, column);
    else yield await readFile(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

async function* linesOf(path: string, column: string): AsyncGenerator<string, void, undefined> {
  const file = await open(path);
  let number = 0;
  for await (const line of file.readLines()) {
    number += 1;
    if (line.trim() === '') continue;
    const row = parsed(line);
    if (row === null) {
      const hint = 'each line of a .jsonl file is one JSON object; mend it, or give the text as .txt';
      throw errorFor('SOURCE_CORRUPT', `${path}, line ${number}: not a JSON object`, hint);
    }
    const text = row[column];
    if (typeof text === 'string') yield text;
    else if (text !== null) {
      throw errorFor(
        'COLUMN_NOT_FOUND',
        `${path}, line ${number}: there is no text in ${JSON.stringify(column)}`,
        `name the column with --text-column; the line has ${Object.keys(row).join(', ') || 'none'}`,
      );
    }
  }
}

function parsed(line: string): Record<string, unknown> | null {
  try {
    const row: unknown = JSON.parse(line);
    return typeof row === 'object' && row !== null && !Array.isArray(row) ? { ...row } : null;
  } catch {
    return null;
  }
}

function unreadable(path: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !('syscall' in cause)) return cause;
  return errorFor(
    'DATASET_NOT_FOUND',
    `cannot read ${path}: ${cause.message}`,
    'give the path of a text file',
    cause,
  );
}
