/** A curve as the page draws it. */
export interface Curve {
  x: Float64Array;
  low: Float32Array;
  high: Float32Array;
  smooth: Float32Array | null;
}

/** What `encodeCurves` made, read again. */
export function decodeCurves(buffer: ArrayBuffer): {
  rows: number;
  extent: [number | null, number | null];
  curves: Map<string, Curve>;
};
