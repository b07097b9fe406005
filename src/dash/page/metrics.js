/** Which curves there are, what they are called, and in which unit they are drawn. */
import { byteSteps, bytes, percent, short } from './numbers.js';

/**
 * @typedef {object} Metric
 * @property {string} id
 * @property {string} title
 * @property {string} unit
 * @property {string[]} keys first the line; a second is drawn as points
 * @property {(value: number) => string} format
 * @property {boolean} [fromZero] the axis begins at zero
 * @property {readonly number[]} [steps] what marks of the axis are multiples of
 * @property {string[]} [names] what several keys are called
 * @property {boolean} [lines] every key is a line
 * @property {boolean} [decimals] marks of the axis are plain decimals
 */

const loss = (value) => (Number.isFinite(value) ? value.toFixed(4) : '–');

/** @type {Metric[]} */
const known = [
  {
    id: 'loss',
    title: 'Loss',
    unit: 'nats per token',
    keys: ['loss', 'eval_loss'],
    names: ['training', 'validation'],
    format: loss,
    decimals: true,
  },
  {
    id: 'bits_per_byte',
    title: 'Bits per byte',
    unit: 'validation',
    keys: ['bits_per_byte'],
    format: loss,
    decimals: true,
  },
  {
    id: 'lr',
    title: 'Learning rate',
    unit: '',
    keys: ['lr'],
    format: (value) => value.toExponential(3).replace('-', '−'),
  },
  {
    id: 'grad_norm',
    title: 'Gradient norm',
    unit: 'before clipping',
    keys: ['grad_norm'],
    format: short,
    fromZero: true,
  },
  {
    id: 'tokens_per_second',
    title: 'Speed',
    unit: 'tokens per second',
    keys: ['tokens_per_second'],
    format: short,
    fromZero: true,
  },
  {
    id: 'mfu',
    title: 'Model FLOPs utilisation',
    unit: '% of the device’s peak',
    keys: ['mfu'],
    format: percent,
    fromZero: true,
  },
  {
    id: 'data_wait',
    title: 'Waiting for data',
    unit: '% of the time',
    keys: ['data_wait'],
    format: percent,
    fromZero: true,
  },
  {
    id: 'memory',
    title: 'Memory',
    unit: 'of the process',
    keys: ['memory'],
    format: bytes,
    fromZero: true,
    steps: byteSteps,
  },
  {
    id: 'device_memory',
    title: 'Device memory',
    unit: 'in use',
    keys: ['device_memory'],
    format: bytes,
    fromZero: true,
    steps: byteSteps,
  },
  {
    id: 'samples_per_second',
    title: 'Documents',
    unit: 'per second',
    keys: ['samples_per_second'],
    format: short,
    fromZero: true,
  },
];

/** What only counts, or is an axis. */
const hidden = new Set(['step', 'tokens', 'documents', 'epoch', 'time']);

/** The metrics for the keys that runs have, in a fixed order; keys that nobody knows come last, under their own name. */
export function metricsFor(keys, sources) {
  const found = known.filter((metric) => metric.keys.some((key) => keys.has(key)));
  const shares = [...keys].filter((key) => /^mix\.\d+\.share$/.test(key)).sort();
  if (shares.length > 0) {
    const names = shares.map((key) => sources[Number(key.split('.')[1])] ?? `source ${key.split('.')[1]}`);
    found.push({
      id: 'mix',
      title: 'Mix',
      unit: '% of the tokens so far',
      keys: shares,
      names,
      format: percent,
      fromZero: true,
      lines: true,
    });
  }
  const taken = new Set(found.flatMap((metric) => metric.keys));
  for (const key of keys) {
    if (taken.has(key) || hidden.has(key) || key.startsWith('mix.')) continue;
    found.push({ id: key, title: key.replaceAll('_', ' '), unit: '', keys: [key], format: short });
  }
  return found;
}
