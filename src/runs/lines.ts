import { open } from 'node:fs/promises';

/** Read from the end of a file at first; doubled from there. Rows have a few hundred bytes. */
const FIRST_BYTES = 16 << 10;
/** What lies further from the end than this is not looked for. */
const MOST_BYTES = 64 << 20;

/** Whole lines of a file, newest first: what they cost does not depend on how long the history is. */
export async function* linesFromEnd(path: string): AsyncGenerator<string> {
  const file = await open(path, 'r').catch(() => null);
  if (file === null) return;
  try {
    const { size } = await file.stat();
    let end = size;
    let wanted = FIRST_BYTES;
    let rest: Buffer = Buffer.alloc(0);
    while (end > 0 && size - end < MOST_BYTES) {
      const length = Math.min(wanted, end);
      const block = Buffer.alloc(length);
      await file.read(block, 0, length, end - length);
      end -= length;
      wanted *= 2;
      const text = Buffer.concat([block, rest]);
      // A line that reaches to the start of what was read may begin before it.
      const cut = end === 0 ? 0 : text.indexOf(10) + 1;
      if (end > 0 && cut === 0) {
        rest = text;
        continue;
      }
      rest = text.subarray(0, Math.max(0, cut - 1));
      const lines = text.subarray(cut).toString('utf8').split('\n');
      for (const line of lines.reverse()) if (line !== '') yield line;
    }
  } finally {
    await file.close();
  }
}

/** The objects that the lines hold, newest first; a line that was cut off while it was written is passed over. */
export async function* rowsFromEnd(path: string): AsyncGenerator<Record<string, unknown>> {
  for await (const line of linesFromEnd(path)) {
    try {
      const row: unknown = JSON.parse(line);
      if (typeof row === 'object' && row !== null) yield row as Record<string, unknown>;
    } catch {
      // Half a line.
    }
  }
}
