/** A range of steps or batches, both ends included, counted from 1. */
export type Range = readonly [first: number, last: number];

/** Reads `A:B` with 1 ≤ A ≤ B; null for what is none. */
export function parseRange(text: string): Range | null {
  const [, first, last] = /^(\d+):(\d+)$/.exec(text.replaceAll('_', '')) ?? [];
  const range = [Number(first), Number(last)] as const;
  return range.every(Number.isSafeInteger) && range[0] >= 1 && range[0] <= range[1] ? range : null;
}

/** The ranges of a checked `data.skip_steps`. */
export function rangesOf(texts: readonly string[]): Range[] {
  return texts.map(parseRange).filter((range) => range !== null);
}
