/** Pretrain a transformer from a stream: the public API. */
export { configFromValues, loadConfig } from './config/index.js';
export type { LoadedConfig, ResolvedConfig, RunConfig } from './config/index.js';
export { HuggingFaceStreamingCorpus, MultiCorpus, ProcessStreamingCorpus } from './corpus/index.js';
export type {
  HuggingFaceCorpusOptions,
  Member,
  MultiCorpusOptions,
  OnExhausted,
  ProcessCorpusOptions,
  StreamingCorpus,
} from './corpus/index.js';
export { StreamingTextDataLoader } from './data/index.js';
export type { LoaderBatch, LoaderOptions, LoaderStats } from './data/index.js';
export {
  AbortedError,
  CandlewickError,
  ConfigurationError,
  DivergedError,
  EnvironmentError,
  OutOfMemoryError,
  SourceError,
} from './errors.js';
export type { ErrorCode } from './errors.js';
export { exportModel } from './export/index.js';
export type { ExportResult, ExportType } from './export/index.js';
export { Model } from './model/index.js';
export type { GenerateOptions, LoadOptions } from './model/index.js';
export { Trainer } from './run/index.js';
export type {
  DoneEvent,
  EvalRow,
  RunPlan,
  SetupEvent,
  SkippedEvent,
  SourceShare,
  SpikeEvent,
  StepRow,
  TrainerEvent,
  TrainerOptions,
} from './run/index.js';
export { DecodeStream, Tokenizer } from './tokenizer/index.js';
export type {
  Compression,
  EncodeBatchOptions,
  EncodeOptions,
  IdList,
  Ids,
  InspectOptions,
  NamedToken,
  Pattern,
  SampleQuality,
  ScriptQuality,
  Text,
  TextSource,
  TokenizerComparison,
  TokenizerFacts,
  TokenizerProgress,
  TokenizerReport,
  TokenizerTrainOptions,
} from './tokenizer/index.js';
