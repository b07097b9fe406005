/** Random datasets: files, row groups, lengths, nulls. */
import type { Random } from './random.js';

/** A file of a dataset, as the oracle writes it. */
export interface DataFile {
  /** Relative to the dataset; `.parquet` or `.jsonl`. */
  path: string;
  documents: (string | null)[];
  groupRows: number;
  type: 'string' | 'large_string';
}

const words = [
  'tide',
  'a',
  'größer',
  '東京',
  '🙂',
  'the',
  '\n',
  '  ',
  '<|endoftext|>',
  '0.25',
  'Ωμέγα',
  "don't",
];

function documentOf(random: Random): string | null {
  const kind = random.below(12);
  if (kind === 0) return null;
  if (kind === 1) return '';
  // Now and then one that is longer than any batch.
  const length = kind === 2 ? 400 + random.below(2000) : 1 + random.below(60);
  return Array.from({ length }, () => random.of(words)).join(' ');
}

/** Files with at least one document among them. */
export function datasetOf(random: Random): DataFile[] {
  const isParquet = !random.oneIn(4);
  const type = random.of(['string', 'large_string'] as const);
  const count = 1 + random.below(7);
  const files = Array.from({ length: count }, (_, f): DataFile => {
    // Few rows a group and many groups: several segments of 50.
    const isLong = isParquet && random.oneIn(8);
    const rows = isLong ? 110 + random.below(60) : random.below(40);
    return {
      path: `data/${String(f).padStart(2, '0')}.${isParquet ? 'parquet' : 'jsonl'}`,
      documents: Array.from({ length: rows }, () => documentOf(random)),
      groupRows: isLong ? 1 + random.below(2) : 1 + random.below(20),
      type,
    };
  });
  (files[0] as DataFile).documents.push('one at least', 'and another');
  return files;
}
