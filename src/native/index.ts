import { createRequire } from 'node:module';
import { errorFor } from '../errors.js';
import { findBinary } from './binary.js';
import type {
  CudaReport,
  FeedLink,
  FeedOptions,
  NativeBinding,
  NativeFeed,
  NativeHeldOut,
  NativeLineLink,
  NativeLink,
  NativeModel,
  NativeTokenizer,
  NativeTokenizerTrainer,
  NativeStepTimer,
  NativeTrainer,
  RunMemory,
} from './binding.js';
import { explainLoadFailure } from './load-failure.js';

export { findBinary } from './binary.js';
export { platformTriple } from './platform.js';

/** What the compiled binding exports, as napi names it. */
interface Compiled {
  version(): string;
  hasCuda(): boolean;
  cudaReport(environments: string[], ordinal: number): string;
  lookAtCuda(environments: string[], ordinal: number): Promise<string>;
  freeGpuMemory(ordinal: number): number | null;
  checkModelForCuda(model: string): void;
  createPipe(): { read: number; write: number } | null;
  NativeLink: new () => NativeLink;
  NativeLineLink: new () => NativeLineLink;
  NativeFeed: new (options: string, links: FeedLink[], tokenizer?: NativeTokenizer) => NativeFeed;
  NativeTokenizerTrainer: new (options: string) => NativeTokenizerTrainer;
  collectHeldOut(feed: NativeFeed, tokenizer: NativeTokenizer): Promise<NativeHeldOut>;
  joinHeldOut(parts: NativeHeldOut[]): NativeHeldOut;
  tokenizerFromPath(path: string): Promise<NativeTokenizer>;
  tokenizerFromRankFile(path: string, pattern: string): Promise<NativeTokenizer>;
  createTrainer(options: string, feed: NativeFeed, tokenizer: NativeTokenizer): Promise<NativeTrainer>;
  loadModel(dir: string, device: string): Promise<NativeModel>;
  exportModel(from: string, to: string, options: string): Promise<string>;
  inspectModel(dir: string): string;
  checkWeights(dir: string, model: string): void;
  parameterCount(model: string): string;
  NativeStepTimer: new (engine: string) => NativeStepTimer;
  estimateMemory(engine: string, surroundings: string): string;
}

let loaded: NativeBinding | undefined;

/** The native binding, loaded at the first call. Throws NATIVE_NOT_FOUND with what was tried. */
export function native(): NativeBinding {
  loaded ??= bind(load());
  return loaded;
}

function load(): Compiled {
  const binary = findBinary();
  try {
    return createRequire(import.meta.url)(binary.file) as Compiled;
  } catch (cause) {
    const said = cause instanceof Error ? cause.message : String(cause);
    const { message, hint } = explainLoadFailure(said, binary);
    throw errorFor('NATIVE_NOT_FOUND', message, hint, cause);
  }
}

/** Turns native errors, which carry JSON as their message, into our classes. */
function mapped(cause: unknown): unknown {
  if (!(cause instanceof Error)) return cause;
  try {
    const { code, message, hint } = JSON.parse(cause.message) as Record<string, string>;
    if (code !== undefined && message !== undefined) return errorFor(code, message, hint ?? '', cause);
  } catch {
    // Not ours: napi's own message about wrong arguments, or a panic.
  }
  return errorFor(
    'INTERNAL',
    cause.message,
    'this is a bug of candlewick; please report it with the command you ran',
    cause,
  );
}

/** Calls native code; what it throws or rejects with comes out as our errors. */
function call<T>(body: () => T): T {
  try {
    const result = body();
    if (result instanceof Promise) {
      return result.catch((cause: unknown) => {
        throw mapped(cause);
      }) as T;
    }
    return result;
  } catch (cause) {
    throw mapped(cause);
  }
}

/** Makes every method of a native class throw our errors. */
function guard(Class: { prototype: object }): void {
  const prototype = Class.prototype as Record<string, unknown>;
  for (const name of Object.getOwnPropertyNames(prototype)) {
    const method = prototype[name];
    if (name === 'constructor' || typeof method !== 'function') continue;
    prototype[name] = function (this: unknown, ...args: unknown[]): unknown {
      return call(() => Reflect.apply(method, this, args));
    };
  }
}

function bind(compiled: Compiled): NativeBinding {
  for (const exported of Object.values(compiled)) {
    if (typeof exported === 'function' && /^class\b|^Native/.test(exported.name)) guard(exported);
  }
  return {
    version: () => compiled.version(),
    hasCuda: () => compiled.hasCuda(),
    cudaReport: (environments, ordinal) =>
      JSON.parse(call(() => compiled.cudaReport(environments, ordinal))) as CudaReport,
    lookAtCuda: async (environments, ordinal) =>
      JSON.parse(await call(() => compiled.lookAtCuda(environments, ordinal))) as CudaReport,
    freeGpuMemory: (ordinal) => call(() => compiled.freeGpuMemory(ordinal)) ?? null,
    checkModelForCuda: (model) => call(() => compiled.checkModelForCuda(model)),
    createPipe: () => call(() => compiled.createPipe()),
    createLink: () => call(() => new compiled.NativeLink()),
    createLineLink: () => call(() => new compiled.NativeLineLink()),
    createFeed: (options: FeedOptions, links, tokenizer) => {
      const { batches, state, skip, ...rest } = options;
      const json = JSON.stringify({
        ...rest,
        batches: batches ?? null,
        state: state ?? null,
        skip: skip ?? [],
      });
      return call(() => new compiled.NativeFeed(json, links, tokenizer));
    },
    collectHeldOut: (feed, tokenizer) => call(() => compiled.collectHeldOut(feed, tokenizer)),
    joinHeldOut: (parts) => call(() => compiled.joinHeldOut(parts)),
    tokenizerFromPath: (path) => call(() => compiled.tokenizerFromPath(path)),
    tokenizerFromRankFile: (path, pattern) => call(() => compiled.tokenizerFromRankFile(path, pattern)),
    createTokenizerTrainer: (options) => call(() => new compiled.NativeTokenizerTrainer(options)),
    createTrainer: (options, feed, tokenizer) => call(() => compiled.createTrainer(options, feed, tokenizer)),
    loadModel: (dir, device) => call(() => compiled.loadModel(dir, device)),
    exportModel: (from, to, options) => call(() => compiled.exportModel(from, to, options)),
    inspectModel: (dir) => call(() => compiled.inspectModel(dir)),
    checkWeights: (dir, model) => call(() => compiled.checkWeights(dir, model)),
    parameterCount: (model) => call(() => compiled.parameterCount(model)),
    createStepTimer: (engine) => call(() => new compiled.NativeStepTimer(JSON.stringify(engine))),
    estimateMemory: (engine, surroundings) => {
      const [shape, around] = [JSON.stringify(engine), JSON.stringify(surroundings)];
      return JSON.parse(call(() => compiled.estimateMemory(shape, around))) as RunMemory;
    },
  };
}
