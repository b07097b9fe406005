/** The rule of mixing, written down slowly: what streams of several sources are held against. */
import type { OnExhausted } from '../../src/corpus/index.js';

/** A source: its documents in order (for `repeat` more than will be needed), and its share. */
export interface MixedSource<T> {
  documents: readonly T[];
  weight: number;
  onExhausted: OnExhausted;
}

/** The documents of several sources in the order of the mixture, at most `limit`; `size` counts a document's bytes or tokens. */
export function mixture<T>(
  sources: readonly MixedSource<T>[],
  size: (document: T) => number,
  limit = Number.POSITIVE_INFINITY,
): { source: number; document: T }[] {
  const taken = sources.map(() => 0);
  const active = new Set(sources.keys());
  let consumed = sources.map(() => 0);
  const mixed: { source: number; document: T }[] = [];
  while (active.size > 0 && mixed.length < limit) {
    const weights = [...active].reduce((sum, i) => sum + (sources[i]?.weight ?? 0), 0);
    const total = consumed.reduce((sum, count) => sum + count, 0);
    let next = -1;
    let largest = Number.NEGATIVE_INFINITY;
    for (const i of [...active].sort((a, b) => a - b)) {
      const deficit = (sources[i]?.weight ?? 0) * total - (consumed[i] ?? 0) * weights;
      if (deficit > largest) [next, largest] = [i, deficit];
    }
    const source = sources[next];
    const at = taken[next] ?? 0;
    const document = source?.documents[at];
    if (source === undefined || document === undefined) {
      if (source?.onExhausted === 'repeat') throw new Error('give the reference more of what repeats');
      if (source?.onExhausted !== 'drop') break;
      active.delete(next);
      consumed = sources.map(() => 0);
      continue;
    }
    taken[next] = at + 1;
    consumed[next] = (consumed[next] ?? 0) + size(document);
    mixed.push({ source: next, document });
  }
  return mixed;
}
