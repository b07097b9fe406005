import {
  bytesInWords,
  categories,
  deviceCategories,
  editsInWords,
  flopInWords,
  FLOPS_FORMULA,
} from '../estimate/index.js';
import type { Estimate } from '../estimate/index.js';
import { duration, short } from '../run/index.js';

const count = (n: number) => n.toLocaleString('en-US');

/** Bytes in a table: 1,234.5 MB. */
const megabytes = (bytes: number) =>
  `${(bytes / 1e6).toLocaleString('en-US', { minimumFractionDigits: 1, maximumFractionDigits: 1 })} MB`;

/** What a run will take, in three lines at its head. */
export function headInWords({
  memory,
  disk,
  tokens,
  seconds,
  speed,
  flops_per_token: flops,
}: Estimate): string[] {
  const { weights, gradients, moments, activations } = memory.device ?? memory;
  const [required, where] =
    memory.device === null
      ? [memory.required, '']
      : [memory.device.required, ` of the GPU, ${bytesInWords(memory.required)} of the machine`];
  const copy = memory.snapshot > 0 ? `, ${bytesInWords(memory.peak)} while a checkpoint is written` : '';
  const whole =
    tokens === null || seconds === null
      ? ''
      : `, ${flopInWords(tokens * flops.total)} in all; about ${duration(seconds)} at ${short(speed.tokensPerSecond)} tok/s (${speed.source})`;
  return [
    `memory     ${bytesInWords(required)}${where}: weights, gradients and moments ${bytesInWords(weights + gradients + moments)}, ` +
      `activations ${bytesInWords(activations)}${copy}`,
    `disk       ${bytesInWords(disk.total)} at most, ${bytesInWords(disk.checkpoint)} a checkpoint`,
    `compute    ${flopInWords(flops.total)} a token${whole}`,
  ];
}

/** The whole estimate, for people. */
export function estimateInWords(found: Estimate, priced: boolean): string[] {
  const { parameters, flops_per_token: flops, memory, disk, speed } = found;
  const entry = (name: string, value: string) => `${name.padEnd(11)} ${value}`;
  return [
    entry(
      'parameters',
      `${count(parameters.total)}: embedding ${count(parameters.embedding)}, blocks ${count(parameters.blocks)}, ` +
        (parameters.head === 0 ? 'head tied' : `head ${count(parameters.head)}`),
    ),
    entry(
      'FLOPs',
      `${flopInWords(flops.total)} a token: products ${flopInWords(flops.products)}, attention ${flopInWords(flops.attention)}`,
    ),
    entry('', `(${FLOPS_FORMULA})`),
    entry(
      'step',
      `${count(found.tokens_per_step)} tokens, ${flopInWords(found.tokens_per_step * flops.total)}`,
    ),
    entry(
      'run',
      found.tokens === null
        ? 'no limit that can be counted; --max-steps sets one'
        : `${short(found.tokens)} tokens, ${count(found.steps ?? 0)} steps, ${flopInWords(found.tokens * flops.total)}`,
    ),
    '',
    ...memoryTable(found),
    '',
    entry(
      'disk',
      `${bytesInWords(disk.total)} at most: ${disk.checkpoints} ${disk.checkpoints === 1 ? 'checkpoint' : 'checkpoints'} of ${bytesInWords(disk.checkpoint)}` +
        ` (the one being written included), the rest ${bytesInWords(disk.rest)}` +
        (disk.free === null ? '' : `; ${bytesInWords(disk.free)} free`),
    ),
    entry('speed', `${short(speed.tokensPerSecond)} tok/s, ${speed.source}: ${speed.basis}`),
    ...(found.seconds === null
      ? []
      : [
          entry(
            'time',
            `${duration(found.seconds)}` +
              (priced && found.cost !== null ? `, ${found.cost.toFixed(2)} at the price given` : ''),
          ),
        ]),
    ...found.assumptions.map((words) => entry('assumed', words)),
    ...verdict(found, memory.required),
  ];
}

function memoryTable({ memory }: Estimate): string[] {
  const { device } = memory;
  const row = (name: string, bytes: number) => `  ${name.padEnd(44)} ${megabytes(bytes).padStart(12)}`;
  return [
    ...(device === null
      ? []
      : [
          'memory on the GPU',
          ...deviceCategories.map(([key, name]) => row(name, device[key])),
          row('required', device.required),
        ]),
    'memory on the CPU',
    ...categories.map(([key, name]) => row(name, memory[key])),
    ...(device === null
      ? [
          row('logits of a chunk of tokens', memory.logits),
          row('attention scores, packed matrices', memory.scratch),
        ]
      : [row('copies to the GPU', memory.scratch)]),
    row('required', memory.required),
    memory.snapshot > 0
      ? row('while a checkpoint is written: a copy', memory.snapshot)
      : '  no room for a copy: steps wait while a checkpoint is written',
    ...(memory.snapshot > 0 ? [row('peak', memory.peak)] : []),
  ];
}

/** Whether it fits; and what to change where it does not. */
function verdict(found: Estimate, required: number): string[] {
  const { disk } = found;
  if (found.memory_available === null) {
    return [
      found.memory.device === null
        ? 'the memory above is of the CPU in f32: the kernels of a GPU are not made for this model'
        : 'the memory on the GPU is counted from the buffers of a step; no GPU has been measured yet',
    ];
  }
  const edits =
    found.edits.length === 0
      ? ['nothing in the configuration makes it fit: a machine with more memory does']
      : editsInWords(found.edits).map((words) => `  ${words}`);
  const lines: string[] = [];
  const device = found.memory.device;
  if (device !== null && found.gpu_available !== null) {
    const fits = !found.problems.includes('gpu memory');
    lines.push(
      `${fits ? 'fits' : 'does not fit'}: ${bytesInWords(device.required)} of the GPU's memory are needed, ` +
        `${bytesInWords(found.gpu_available)} are free`,
      ...(fits || found.problems.includes('memory') ? [] : edits),
    );
  }
  if (found.problems.includes('memory')) {
    lines.push(
      `does not fit: ${bytesInWords(required)} of memory are needed, ${bytesInWords(found.memory_available)} are free`,
      ...edits,
    );
  } else
    lines.push(
      `fits: ${bytesInWords(required)} of memory are needed, ${bytesInWords(found.memory_available)} are free`,
    );
  if (found.problems.includes('disk')) {
    lines.push(
      `does not fit: ${bytesInWords(disk.total)} of disk are needed, ${bytesInWords(disk.free ?? 0)} are free; ` +
        'lower checkpoint.keep_last, or name another directory with --output',
    );
  }
  return lines;
}
