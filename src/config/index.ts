export { configFromValues, configToYaml, loadConfig, parseConfig } from './load.js';
export type { LoadedConfig } from './load.js';
export { paddedVocabSize, resolve, vocabSizeFor } from './resolve.js';
export type { Decision, ResolvedConfig } from './resolve.js';
export { keysAt, leafPaths, runSchema } from './schema.js';
export type { RunConfig } from './schema.js';
export { configurationError, parseSet } from './source.js';
export type { Override } from './source.js';
export { didYouMean } from './suggest.js';
