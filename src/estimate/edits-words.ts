import type { Edit } from './edits.js';
import { bytesInWords } from './units.js';

/** One line an edit: what to set, and what that saves. */
export function editsInWords(edits: readonly Edit[]): string[] {
  return edits.map(({ key, from, to, saves, enough }, i) => {
    const before = edits[i - 1];
    const link =
      before === undefined ? 'set' : before.enough ? (enough ? 'or set' : 'besides, set') : 'and set';
    return `${link} ${key}: ${to} (now ${from}; saves ${bytesInWords(saves)})`;
  });
}
