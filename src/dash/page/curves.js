/** What the server sends of a run: a JSON header and the numbers that it names. */

/**
 * @typedef {object} Curve
 * @property {Float64Array} x
 * @property {Float32Array} low
 * @property {Float32Array} high
 * @property {Float32Array | null} smooth
 */

/**
 * @param {number} run
 * @param {{axis: string, from: number | null, to: number | null, points: number, smooth: number}} window
 * @param {AbortSignal} signal
 * @returns {Promise<{rows: number, extent: [number | null, number | null], curves: Map<string, Curve>}>}
 */
export async function fetchCurves(run, { axis, from, to, points, smooth }, signal) {
  const query = new URLSearchParams({
    run: String(run),
    x: axis,
    points: String(points),
    smooth: String(smooth),
  });
  if (from !== null) query.set('from', String(from));
  if (to !== null) query.set('to', String(to));
  const response = await fetch(`/api/curves?${query}`, { signal });
  if (!response.ok) throw new Error(await response.text());
  return decodeCurves(await response.arrayBuffer());
}

export function decodeCurves(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  let at = 8 + length;
  const take = (Kind, count) => {
    const array = new Kind(buffer, at, count);
    at += array.byteLength;
    return array;
  };
  const curves = new Map();
  for (const { points, series } of header.groups) {
    const x = take(Float64Array, points);
    for (const { key, smooth } of series) {
      const low = take(Float32Array, points);
      const high = take(Float32Array, points);
      curves.set(key, { x, low, high, smooth: smooth ? take(Float32Array, points) : null });
    }
    at = Math.ceil(at / 8) * 8;
  }
  return { rows: header.rows, extent: header.extent, curves };
}

/** Index of the point of `x` that is nearest to `where`; -1 where there is none. */
export function nearest(x, where) {
  if (x.length === 0) return -1;
  let low = 0;
  let high = x.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x[middle] < where) low = middle + 1;
    else high = middle;
  }
  return low > 0 && where - x[low - 1] < x[low] - where ? low - 1 : low;
}
