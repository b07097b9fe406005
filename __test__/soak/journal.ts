/** What a consumer of a random run wrote down before it ended, whatever ended it. */
import { existsSync, readFileSync } from 'node:fs';

export interface Batch {
  inputs: Uint32Array;
  targets: Uint32Array;
  counted: number;
  hash: string;
}

/** The batches of a journal. The last line may have been cut by the end of its writer. */
export function readJournal(path: string): Batch[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.map((line) => {
    const { counted, hash, inputs, targets } = JSON.parse(line) as Record<string, string> & {
      counted: number;
    };
    return { inputs: ids(inputs), targets: ids(targets), counted, hash: hash as string };
  });
}

function ids(base64 = ''): Uint32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
  return new Uint32Array(bytes.buffer);
}

/** What differs between two batches; null: nothing. */
export function difference(found: Batch, wanted: Batch): string | null {
  if (found.counted !== wanted.counted) return `${found.counted} targets count instead of ${wanted.counted}`;
  for (const part of ['inputs', 'targets'] as const) {
    const [a, b] = [found[part], wanted[part]];
    if (a.length !== b.length) return `${a.length} ${part} instead of ${b.length}`;
    const at = a.findIndex((id, i) => id !== b[i]);
    if (at >= 0) return `${part}[${at}] is ${a[at]} instead of ${b[at]}`;
  }
  return found.hash === wanted.hash ? null : `the hash is ${found.hash} instead of ${wanted.hash}`;
}

/** The state that the consumer saved last: after how many batches, and the state itself. */
export function savedBatches(path: string): number {
  if (!existsSync(path)) return 0;
  return (JSON.parse(readFileSync(path, 'utf8')) as { batches: number }).batches;
}
