/** What a run will take, before it begins. */
export { hostMemory } from './host.js';
export type { HostMemory } from './host.js';
export { bytesInWords, flopInWords } from './units.js';
