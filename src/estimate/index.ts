/** What a run will take, before it begins. */
export { editsThatFit } from './edits.js';
export type { Edit } from './edits.js';
export { fitToMemory, openIn } from './fit.js';
export { hostMemory } from './host.js';
export type { HostMemory } from './host.js';
export { ASSUMED_DOCUMENT_BYTES, memoryOf } from './memory.js';
export type { Known } from './memory.js';
export { estimate } from './estimate.js';
export type { Estimate, EstimateOptions } from './estimate.js';
export { ASSUMED_MFU, assumedGpuSpeed, devicePeaks, FLOPS_FORMULA, gpuPeak, mfuOf } from './speed.js';
export type { FlopsPerToken, Speed } from './speed.js';
export { measureSpeed } from './measure.js';
export { editsInWords } from './edits-words.js';
export { deviceCategories, gpuAvailable, outOfGpuMemory } from './gpu.js';
export { categories, requireMemory } from './preflight.js';
export { bytesInWords, flopInWords } from './units.js';
