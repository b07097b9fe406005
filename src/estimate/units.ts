/** A count in three digits and the largest unit of these that fits, each a thousand of the one before. */
function inUnits(count: number, units: readonly string[]): string {
  let unit = 0;
  let scaled = count;
  while (scaled >= 999.5 && unit < units.length - 1) {
    scaled /= 1000;
    unit++;
  }
  return `${unit === 0 ? String(count) : scaled.toPrecision(3)} ${units[unit]}`;
}

/** Bytes as people say them: 1.50 GB. */
export function bytesInWords(count: number): string {
  return inUnits(count, ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB']);
}

/** Operations as people say them: 1.23 EFLOP. */
export function flopInWords(count: number): string {
  return inUnits(count, ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP', 'EFLOP', 'ZFLOP']);
}
