/** The GPU's memory: what is free, who else has some, and the error for a run that does not fit. */
import { spawnSync } from 'node:child_process';
import { ordinalOf } from '../cuda/index.js';
import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { CandlewickError } from '../errors.js';
import type { DeviceMemory, NativeBinding } from '../native/binding.js';
import { editsThatFit } from './edits.js';
import { editsInWords } from './edits-words.js';
import { memoryOf } from './memory.js';
import type { Known } from './memory.js';
import { bytesInWords } from './units.js';

/** Bytes of the GPU that a run may take; null where it runs on none, or where that cannot be said. */
export function gpuAvailable(
  binding: NativeBinding,
  { training: { device } }: ResolvedConfig,
  known: Known = {},
): number | null {
  if (device === 'cpu') return null;
  return known.gpuAvailable ?? binding.freeGpuMemory(ordinalOf(device));
}

/** The categories of a table or a message, in the order of a step. */
export const deviceCategories: readonly [keyof DeviceMemory, string][] = [
  ['weights', 'weights'],
  ['gradients', 'gradients'],
  ['moments', 'moments of AdamW'],
  ['activations', 'activations of a micro-batch'],
  ['logits', 'logits'],
  ['scratch', 'scratch'],
  ['driver', 'the driver (assumed)'],
];

/**
 * OUT_OF_MEMORY_DEVICE for a run on a GPU: what it needs by category, what is free, who else is there, and two edits.
 * `cause` is what the driver said, where it was tried.
 */
export function outOfGpuMemory(
  binding: NativeBinding,
  config: ResolvedConfig,
  free: number | null,
  known: Known = {},
  cause?: unknown,
): CandlewickError {
  const memory = memoryOf(binding, config, known).device;
  if (memory === null) throw new Error('a run on the CPU takes nothing of a GPU');
  const parts = deviceCategories.map(([key, name]) => `${name} ${bytesInWords(memory[key])}`).join(', ');
  const others = processesOn(config.training.device);
  const edits =
    free === null
      ? []
      : editsThatFit(config, free, (changed) => {
          const { device } = memoryOf(binding, changed, known);
          return { required: device?.required ?? 0 };
        });
  const hints = [
    ...(edits.length === 0
      ? ['lower training.micro_batch_size, or use a GPU with more memory']
      : [editsInWords(edits).join(' ')]),
    ...(others.length === 0 ? [] : ['or end what else is on the GPU']),
    'candlewick estimate CONFIG has the table',
  ];
  return errorFor(
    'OUT_OF_MEMORY_DEVICE',
    `this run needs ${bytesInWords(memory.required)} of the GPU's memory, and ` +
      `${free === null ? 'how much is free is not known' : `${bytesInWords(free)} are free`}: ${parts}` +
      (others.length === 0 ? '' : `; others have of it: ${others.join(', ')}`),
    hints.join('; '),
    cause,
  );
}

/** Processes on the GPU with their memory, as nvidia-smi tells; none where it does not. */
export function processesOn(device: string): string[] {
  const { stdout, status } = spawnSync(
    'nvidia-smi',
    [
      `--id=${ordinalOf(device)}`,
      '--query-compute-apps=pid,process_name,used_memory',
      '--format=csv,noheader,nounits',
    ],
    { encoding: 'utf8', timeout: 5000 },
  );
  if (status !== 0) return [];
  return stdout.split('\n').flatMap((line) => {
    const [pid, name, mebibytes] = line.split(',').map((field) => field.trim());
    if (pid === undefined || name === undefined || Number(pid) === process.pid || pid === '') return [];
    const bytes = Number(mebibytes) * 2 ** 20;
    return [`${name} (process ${pid}${Number.isFinite(bytes) ? `, ${bytesInWords(bytes)}` : ''})`];
  });
}
