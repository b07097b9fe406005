/** Numbers as people read them, and places for the marks of an axis. */

/** Three or four digits and a unit: 1.23k, 45.6M. */
export function short(value) {
  const size = Math.abs(value);
  for (const [scale, unit] of [
    [1e12, 'T'],
    [1e9, 'B'],
    [1e6, 'M'],
    [1e4, 'k'],
  ]) {
    if (size >= scale * 0.99995)
      return `${trim((unit === 'k' ? value / 1e3 : value / scale).toPrecision(4))}${unit}`;
  }
  if (size >= 1000 || Number.isInteger(value)) return Math.round(value).toLocaleString('en-US');
  if (size !== 0 && size < 1e-3) return trimExponent(value.toExponential(2));
  return trim(value.toPrecision(4));
}

function trim(text) {
  return text.includes('.') && !text.includes('e') ? text.replace(/\.?0+$/, '') : text;
}

function trimExponent(text) {
  return text
    .replace(/\.?0+e/, 'e')
    .replace('e+', 'e')
    .replace('-', '−')
    .replace('e-', 'e−');
}

/** Seconds as 4.2 s, 3m05s, 2h07m, 3d04h. */
export function duration(seconds) {
  if (seconds < 60) return `${trim(seconds.toFixed(seconds < 10 ? 1 : 0))} s`;
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)}m${two(whole % 60)}s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86_400)}d${two(Math.floor((whole % 86_400) / 3600))}h`;
}

export function percent(share) {
  const value = share * 100;
  return `${trim(value.toFixed(value < 1 ? 2 : 1))}%`;
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let scaled = value;
  while (scaled >= 1000 && unit < units.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${trim(scaled.toPrecision(4))} ${units[unit]}`;
}

/** Round places between two ends, about `count` of them; `steps`: what a mark may be a multiple of. */
export function ticks(from, to, count, steps = null) {
  const span = to - from;
  if (!(span > 0)) return [from];
  let step;
  if (steps === null) {
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) ?? rough;
  } else {
    step = steps.find((size) => span / size <= count) ?? Math.ceil(span / count / 86_400) * 86_400;
  }
  const marks = [];
  for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) marks.push(i * step);
  return marks;
}

/** Seconds that a clock counts in. */
export const clockSteps = [
  0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800,
  432_000,
];

/** Bytes that memory is counted in. */
export const byteSteps = Array.from({ length: 60 }, (_, power) => 2 ** power);

/** Places for a logarithmic axis: powers of ten, and more between them where there are few. */
export function logTicks(from, to, count) {
  const [first, last] = [Math.floor(Math.log10(from)), Math.ceil(Math.log10(to))];
  const factors = last - first <= 1 ? [1, 1.5, 2, 3, 4, 5, 7] : last - first <= 3 ? [1, 2, 5] : [1];
  const every = Math.max(1, Math.ceil((last - first) / count));
  const marks = [];
  for (let power = first; power <= last; power += every) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= from * 0.999999 && value <= to * 1.000001) marks.push(value);
    }
  }
  return marks.length >= 2 ? marks : ticks(from, to, count);
}
