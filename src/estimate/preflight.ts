import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding, RunMemory } from '../native/binding.js';
import { editsThatFit } from './edits.js';
import { editsInWords } from './edits-words.js';
import { gpuAvailable, outOfGpuMemory } from './gpu.js';
import { hostMemory } from './host.js';
import { memoryOf } from './memory.js';
import type { Known } from './memory.js';
import { bytesInWords } from './units.js';

/** An estimate is not exact: what is over by less is tried. */
const TOLERANCE = 0.05;

/** The categories of a table or a message, in the order of a step. */
export const categories: readonly [Exclude<keyof RunMemory, 'device'>, string][] = [
  ['weights', 'weights'],
  ['gradients', 'gradients'],
  ['moments', 'moments of AdamW'],
  ['activations', 'activations of a micro-batch'],
  ['stream', 'stream'],
  ['tokenizer', 'tokenizer'],
  ['process', 'Node'],
];

/**
 * Makes sure that a run has the memory that it needs, before time is spent. Throws OUT_OF_MEMORY_HOST and
 * OUT_OF_MEMORY_DEVICE with what is needed by category, what is free, and two edits.
 */
export function requireMemory(binding: NativeBinding, config: ResolvedConfig, known: Known = {}): void {
  // What this process holds already is part of what is needed.
  const free = known.memoryAvailable ?? hostMemory().available + process.memoryUsage.rss();
  const given = { ...known, memoryAvailable: free };
  const memory = memoryOf(binding, config, given);
  const gpu = gpuAvailable(binding, config, known);
  if (gpu !== null && (memory.device?.required ?? 0) * (1 - TOLERANCE) > gpu) {
    throw outOfGpuMemory(binding, config, gpu, given);
  }
  if (memory.required * (1 - TOLERANCE) <= free) return;
  const parts = categories.map(([key, name]) => `${name} ${bytesInWords(Number(memory[key]))}`);
  const during = `logits and scratch ${bytesInWords(memory.logits + memory.scratch)}`;
  const edits = editsThatFit(config, free, (changed) => memoryOf(binding, changed, given));
  throw errorFor(
    'OUT_OF_MEMORY_HOST',
    `this run needs ${bytesInWords(memory.required)} of memory, and ${bytesInWords(free)} are free: ${[...parts, during].join(', ')}`,
    `${edits.length === 0 ? 'use a machine with more memory' : editsInWords(edits).join(' ')}; candlewick estimate CONFIG has the table`,
  );
}
