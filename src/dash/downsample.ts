import type { Table } from './columns.js';

/** What a curve is drawn over. */
export type Axis = 'step' | 'tokens' | 'time';

export interface Window {
  axis: Axis;
  /** Ends of the axis; null: all of it. */
  from: number | null;
  to: number | null;
  /** Points at most; a pixel each. */
  points: number;
  /** Rows that a smoothed value is a mean over; 1: none. */
  smooth: number;
}

/** A table of points: one a row, or one a pixel with the least and the largest value of its rows. */
export interface Curves {
  /** Where the points are on the axis. */
  x: Float64Array;
  series: { key: string; low: Float32Array; high: Float32Array; smooth: Float32Array }[];
}

/**
 * What a chart of `window` needs of a table: every row that is a spike stays visible, since a pixel keeps the least and the
 * largest value of all its rows.
 *
 * @param x position of each row on the axis, ascending
 */
export function curvesOf(table: Table, x: Float64Array, window: Window): Curves {
  // A file of others may have rows without a place on this axis.
  const rows = Math.min(table.rows, x.length);
  const from = window.from ?? x[0] ?? 0;
  const to = window.to ?? x[rows - 1] ?? 0;
  // One row more on either side, so that lines reach the edges.
  const first = Math.max(0, lowerBound(x, from) - 1);
  const last = Math.min(rows, lowerBound(x, to, true) + 1);
  const starts = bucketStarts(x, first, last, from, to, window.points);
  const count = starts.length - 1;
  const at = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    at[i] = ((x[starts[i] as number] as number) + (x[(starts[i + 1] as number) - 1] as number)) / 2;
  }
  const series: Curves['series'] = [];
  for (const [key, column] of table.columns) {
    const { values } = column;
    const low = new Float32Array(count).fill(Number.NaN);
    const high = new Float32Array(count).fill(Number.NaN);
    for (let i = 0; i < count; i++) {
      let least = Infinity;
      let most = -Infinity;
      for (let row = starts[i] as number, end = starts[i + 1] as number; row < end; row++) {
        const value = values[row] as number;
        if (value < least) least = value;
        if (value > most) most = value;
      }
      if (least <= most) {
        low[i] = least;
        high[i] = most;
      }
    }
    series.push({ key, low, high, smooth: smoothed(values, starts, window.smooth) });
  }
  return { x: at, series };
}

/** Index of the first value that is not below `target` (`after`: that is above it). */
export function lowerBound(sorted: Float64Array, target: number, after = false): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const value = sorted[middle] as number;
    if (after ? value <= target : value < target) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** First rows of the buckets, and the end of the last: a bucket a row where there are few, a bucket a pixel else. */
function bucketStarts(
  x: Float64Array,
  first: number,
  last: number,
  from: number,
  to: number,
  points: number,
): number[] {
  const starts: number[] = [];
  const each = last - first <= points || to <= from;
  const scale = points / (to - from);
  let bucket = Number.NEGATIVE_INFINITY;
  for (let row = first; row < last; row++) {
    const own = each ? row : Math.floor(((x[row] as number) - from) * scale);
    if (own === bucket) continue;
    starts.push(row);
    bucket = own;
  }
  starts.push(last);
  return starts;
}

/** The exponential moving average over about `rows` rows, freed of its start's bias, at each bucket's last row. */
function smoothed(values: Float64Array, starts: readonly number[], rows: number): Float32Array {
  const count = starts.length - 1;
  if (rows <= 1 || count <= 0) return new Float32Array(0);
  const decay = 1 - 1 / rows;
  const out = new Float32Array(count);
  let sum = 0;
  let weight = 0;
  // What lies further back than ten times the rows no longer counts.
  let row = Math.max(0, (starts[0] as number) - Math.ceil(10 * rows));
  for (let i = 0; i < count; i++) {
    for (const end = starts[i + 1] as number; row < end; row++) {
      const value = values[row] as number;
      if (!Number.isFinite(value)) continue;
      sum = sum * decay + value;
      weight = weight * decay + 1;
    }
    out[i] = weight === 0 ? Number.NaN : sum / weight;
  }
  return out;
}

/** Curves as bytes: the length of a JSON header, the header, and the numbers, little endian and in the order it names. */
export function encodeCurves(groups: readonly { kind: string; curves: Curves }[], more: object): Buffer {
  const header = {
    ...more,
    groups: groups.map(({ kind, curves }) => ({
      kind,
      points: curves.x.length,
      series: curves.series.map(({ key, smooth }) => ({ key, smooth: smooth.length > 0 })),
    })),
  };
  const text = Buffer.from(JSON.stringify(header));
  // Numbers begin at a multiple of eight, as arrays over the same memory want.
  const padded = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, 0x20);
  padded.writeUInt32LE(padded.length - 8, 0);
  padded.writeUInt32LE(0, 4);
  text.copy(padded, 8);
  const parts: Buffer[] = [padded];
  const put = (array: Float64Array | Float32Array) =>
    parts.push(Buffer.from(array.buffer, array.byteOffset, array.byteLength));
  for (const { curves } of groups) {
    put(curves.x);
    for (const { low, high, smooth } of curves.series) {
      put(low);
      put(high);
      if (smooth.length > 0) put(smooth);
    }
    const written = parts.reduce((sum, part) => sum + part.length, 0);
    if (written % 8 !== 0) parts.push(Buffer.alloc(8 - (written % 8)));
  }
  return Buffer.concat(parts);
}
