import type { ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { NativeBinding, RunMemory } from '../native/binding.js';
import { editsThatFit } from './edits.js';
import type { Edit } from './edits.js';
import { hostMemory } from './host.js';
import { memoryOf } from './memory.js';
import type { Known } from './memory.js';
import { bytesInWords } from './units.js';

/** An estimate is not exact: what is over by less is tried. */
const TOLERANCE = 0.05;

/** The categories of a table or a message, in the order of a step. */
export const categories: readonly [keyof RunMemory, string][] = [
  ['weights', 'weights'],
  ['gradients', 'gradients'],
  ['moments', 'moments of AdamW'],
  ['activations', 'activations of a micro-batch'],
  ['stream', 'stream'],
  ['tokenizer', 'tokenizer'],
  ['process', 'Node'],
];

/**
 * Makes sure that a run has the memory that it needs, before time is spent. Throws OUT_OF_MEMORY_HOST with what is
 * needed by category, what is free, and two edits.
 */
export function requireMemory(binding: NativeBinding, config: ResolvedConfig, known: Known = {}): void {
  // What this process holds already is part of what is needed.
  const free = known.memoryAvailable ?? hostMemory().available + process.memoryUsage.rss();
  const given = { ...known, memoryAvailable: free };
  const memory = memoryOf(binding, config, given);
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

/** One line an edit: what to set, and what that saves. */
export function editsInWords(edits: readonly Edit[]): string[] {
  return edits.map(({ key, from, to, saves, enough }, i) => {
    const before = edits[i - 1];
    const link =
      before === undefined ? 'set' : before.enough ? (enough ? 'or set' : 'besides, set') : 'and set';
    return `${link} ${key}: ${to} (now ${from}; saves ${bytesInWords(saves)})`;
  });
}
