/** What the native binding offers. Everything here is created through `native()` of `./index.js`. */

/** One streamer process as the native side sees it: parses its frames, routes batches to feeds, queues requests. */
export interface NativeLink {
  /** Bytes read from the streamer's pipe. Returns the control messages in them as a JSON array, or null. Throws PROTOCOL_VIOLATION. */
  push(chunk: Uint8Array): string | null;
  /** Request lines to write to the streamer's stdin, each ended by a newline; null once closed. */
  nextWrites(): Promise<string | null>;
  /** The streamer was started again: what it had not answered is requested once more, from the first row not yet received. */
  restart(): void;
  /** The source has failed for good: every feed on it fails with this error. */
  fail(code: string, message: string, hint: string): void;
  /** Ends `nextWrites` and every feed on this link. */
  close(): void;
}

/** One command that writes JSON lines as the native side sees it: every reader has a run of it. */
export interface NativeLineLink {
  /** Bytes of a run's standard output. Whether to read on; if not, a `read` command says when. Throws PROTOCOL_VIOLATION. */
  push(reading: number, run: number, chunk: Uint8Array): boolean;
  /** A run's output is over (`clean`: by itself and without complaint). Whether it had said that it was done. Throws PROTOCOL_VIOLATION. */
  finish(reading: number, run: number, clean: boolean): boolean;
  /** Rows of this pass that a reading has received, those before a resumed reader's first included. */
  received(reading: number): number;
  /** A run is gone before its time: a `start` command follows for one that goes on where it was. */
  restart(reading: number): void;
  /** What to do with the runs, as JSON lines; null once closed. */
  nextCommands(): Promise<string | null>;
  /** One reader has failed for good. */
  failReading(reading: number, code: string, message: string, hint: string): void;
  /** The source has failed for good: every feed on it fails with this error. */
  fail(code: string, message: string, hint: string): void;
  /** Ends `nextCommands` and every feed on this link. */
  close(): void;
}

/** What a feed reads a source through. */
export type FeedLink = NativeLink | NativeLineLink;

/** One source of a feed: what its streamer's `ready` message said, and its share. */
export interface FeedSource {
  /** File paths, sorted; their order and spelling are part of the stream's identity. */
  files: string[];
  /** Whether files are read by row group. */
  row_groups: boolean;
  /** Share of the tokens, relative to the other sources. */
  weight: number;
  on_exhausted: 'repeat' | 'stop' | 'drop';
  /** Everything up to and including this row (file order) is held out. */
  held_out: HeldOutEnd | null;
  /** In file order: the last row that was read before; reading goes on behind it. */
  after?: Place | null;
  /** What makes it this source and no other; a state of a source with another identity is refused. */
  identity?: Record<string, string | null | readonly string[]>;
}

/** A row of a source, in file order. */
export interface Place {
  file: number;
  group: number;
  row: number;
}

/** A row up to which documents were counted. */
export interface CountedPlace extends Place {
  /** Documents up to it. */
  documents: number;
}

/** The last held-out row of a source, in file order. */
export interface HeldOutEnd {
  file: number;
  group: number;
  row: number;
  /** How many documents are held out. */
  documents: number;
}

export interface FeedOptions {
  sources: FeedSource[];
  /** `file`: plain file order, no window. `shuffled`: the order of training. */
  order: 'file' | 'shuffled';
  seed: number;
  shuffle_buffer_size: number;
  /** Documents a frame; how much is fetched at a time. */
  batch_size: number;
  /** Passes over each source; null: no limit. */
  epochs: number | null;
  /** Documents in all; null: no limit. */
  max_samples: number | null;
  /** Threads that tokenize; 0: as many as there are processors. */
  threads: number;
  /** What batches look like; absent for a feed of documents. */
  batches?: { rows: number; sequence_length: number; rank: number; world_size: number };
  /** State of an earlier batch: the stream goes on after it. */
  state?: string;
  /** Start over: of `state` only the counters and the hash go on. */
  reset?: boolean;
  /** Global batches to leave out, first and last of each range; they are numbered from 1. */
  skip?: [first: number, last: number][];
}

export interface NativeBatch {
  inputs: Uint32Array;
  targets: Uint32Array;
  /** Targets that count (not past the end of a finite stream). */
  counted: number;
  /** JSON; resumes after this batch. */
  state: string;
  /** Rolling hash, 16 hex digits. */
  hash: string;
}

/** A document in a global batch. */
export interface BatchSpan {
  source: number;
  /** From 1. */
  epoch: number;
  /** Index in the source's list of files. */
  file: number;
  /** Row group; for a file without, the turn of 1,000 rows. */
  group: number;
  row: number;
  /** Tokens of the whole document, end-of-text included. */
  length: number;
  /** Its first token in the batch, counted in the document. */
  offset: number;
  /** Where that is among the batch's inputs, row-major. */
  start: number;
  /** Its inputs in the batch. */
  tokens: number;
}

export interface NativeFeed {
  /** At least one document unless the stream has ended (null). */
  nextDocuments(max: number): Promise<string[] | null>;
  nextBatch(): Promise<NativeBatch | null>;
  /**
   * Reads up to `count` batches without handing them out. JSON: `batches` that there were, `state` after the last. Of a
   * feed of documents it reads documents, and the state is null.
   */
  advance(count: number): Promise<string>;
  /** JSON: an array of `BatchSpan`, the documents of the last batch. */
  spans(): Promise<string>;
  /** JSON: buffered text and token bytes, documents read, … */
  stats(): string;
  close(): Promise<void>;
}

/** Held-out documents, tokenized: what evaluation reads. */
export interface NativeHeldOut {
  /** Where each source's held-out part ends. */
  ends(): HeldOutEnd[];
  documents(): number;
  /** UTF-8 bytes of the documents. */
  bytes(): number;
  /** Their text one after the other, UTF-8. */
  text(): Uint8Array;
  /** Bits a byte that the empirical unigram distribution of the tokens gives, end-of-text included. */
  unigramBitsPerByte(): number;
}

/** The ids of texts, one after the other, and where those of each end. */
export interface NativeEncoded {
  ids: Uint32Array;
  ends: Uint32Array;
}

export interface NativeEncodedBatch {
  /** In no order. */
  lists: NativeEncoded[];
  /**
   * In the order of the texts, three numbers for those that follow each other in a list, too: which list, the number there
   * of the first of them, and that after the last.
   */
  parts: Uint32Array;
}

export interface NativeTokenizer {
  encode(text: string | Uint8Array): Uint32Array;
  /** Empties the buffers of `reuse`. */
  encodeBatch(
    texts: (string | Uint8Array)[],
    threads: number,
    reuse: ArrayBuffer[],
  ): Promise<NativeEncodedBatch>;
  decode(ids: Uint32Array, skipSpecial: boolean): string;
  vocabSize(): number;
  /** Id and spelling of end-of-text; throws TOKENIZER_INVALID where there is none. */
  endOfText(): { id: number; token: string };
  digest(): string;
  save(dir: string): Promise<void>;
  /** As `encode`, but a special token's spelling is plain text. */
  encodeDocument(text: string | Uint8Array): Uint32Array;
  /** Start and end of each id, in UTF-16 units of a string or in bytes of bytes. */
  encodeWithOffsets(text: string | Uint8Array, special: boolean): { ids: Uint32Array; offsets: Uint32Array };
  decodeStream(skipSpecial: boolean): NativeDecodeStream;
  /** JSON: what this tokenizer is, and who serves it. */
  facts(): Promise<string>;
  qualitySample(): NativeQualitySample;
}

export interface NativeDecodeStream {
  /** The characters that ids complete. */
  push(ids: Uint32Array): string;
  /** What is still held back. */
  finish(): string;
}

/** What a tokenizer makes of a sample of text. */
export interface NativeQualitySample {
  count(documents: (string | Uint8Array)[]): Promise<void>;
  /** Counts every document of a feed without bringing text into JavaScript; ends with the feed. */
  consume(feed: NativeFeed): Promise<void>;
  /** JSON: what was counted. */
  report(): Promise<string>;
  /** JSON: compression by size of the vocabulary. */
  byVocabSize(): Promise<string>;
  /** JSON: compression of another tokenizer on the same text. */
  compare(peer: NativeTokenizer): Promise<string>;
}

export interface NativeTokenizerTrainer {
  /**
   * Keeps counts in a directory, for another process to go on from, and takes over what is kept there. Gives the place
   * of the last document that was counted and how many of the stream were, as JSON of a {@link CountedPlace}; null at
   * the start.
   */
  keepIn(directory: string): Promise<string | null>;
  /** Goes on from the vocabulary of a tokenizer. */
  startFrom(tokenizer: NativeTokenizer): void;
  /** Adds the counts of a file. */
  loadCounts(path: string): Promise<void>;
  /** Writes the counts into a file. */
  saveCounts(path: string): Promise<void>;
  /** Counts the words of documents given by a program. */
  count(documents: (string | Uint8Array)[]): Promise<void>;
  /**
   * Counts every document of a feed without bringing text into JavaScript; ends with the feed. `before` are the documents
   * of the stream that were counted before.
   */
  consume(feed: NativeFeed, before: number): Promise<void>;
  /** JSON: phase, documents, bytes, merges. */
  progress(): string;
  abort(): void;
  finish(): Promise<NativeTokenizer>;
}

export interface NativeTrainer {
  /** Trains until `step` updates are completed, a limit is reached or the stream ends; then a `paused` event follows. */
  runUntil(step: number): void;
  /** Followed by an `eval` event. With `context`, which divides the sequence length, sequences are of so many tokens. */
  evaluate(heldOut: NativeHeldOut, context?: number): void;
  /** Continues a text; followed by a `sample` event. `options`: max_tokens, temperature, seed, vocabulary. */
  sample(prompt: number[], options: string): void;
  /**
   * Writes weights and optimizer into an existing directory, as they are once what was told before is done; what is
   * told next goes on meanwhile. JSON: `step`, `state` of the stream, `files` with sizes and SHA-256, `copied`,
   * `held_seconds`.
   */
  save(dir: string): Promise<string>;
  /** Abandons the step in progress; a `paused` event with reason `stopped` follows. */
  stop(): void;
  /** Events as JSON, oldest first; empty once closed. */
  nextEvents(max: number): Promise<string[]>;
  close(): Promise<void>;
}

export interface NativeGeneration {
  /** The next piece of text, complete characters only; null at the end. */
  next(): Promise<string | null>;
  cancel(): void;
}

export interface NativeModel {
  generate(prompt: string, options: string): NativeGeneration;
  close(): Promise<void>;
}

/** What of a configuration decides how much memory the engine takes. */
export interface EngineShape {
  /** The model as in the configuration, `vocab_size` and `max_position_embeddings` set. */
  model: object;
  sequence_length: number;
  micro_batch_size: number;
  global_batch_size: number;
  threads: number;
  recompute: 'none' | 'norms_and_swiglu';
  moments: 'float32' | 'bfloat16';
  device: string;
}

/** What a run holds besides its engine. */
export interface MemorySurroundings {
  feed: {
    sources: number;
    shuffle_buffer_size: number;
    batch_size: number;
    /** Mean UTF-8 bytes of a document. */
    document_bytes: number;
    /** Tokens of a global batch. */
    batch_tokens: number;
    threads: number;
  };
  /** Tokens of the tokenizer. */
  tokenizer: number;
  /** 0 where nothing is evaluated. */
  held_out_documents: number;
  /** Bytes that the process has without all this. */
  process: number;
  /** Bytes that a new process could take of the machine; null where nobody says. */
  available: number | null;
}

/** Memory by category, in bytes. */
export interface RunMemory {
  weights: number;
  gradients: number;
  moments: number;
  /** What a micro-batch leaves for its way back, and the gradients on the way. */
  activations: number;
  /** Shuffle windows, frames, the token ring, batches, held-out documents. */
  stream: number;
  tokenizer: number;
  process: number;
  /** Of a chunk of tokens, beyond gradients that are not there yet, whose place they have. */
  logits: number;
  /** Attention scores, packed matrices, partial sums. */
  scratch: number;
  /** The most at a time without which the run cannot be. */
  required: number;
  /** While a checkpoint is written and steps go on; 0 where the machine has no room for it and steps wait. */
  snapshot: number;
  /** The most at a time, the snapshot included. */
  peak: number;
  /** What the GPU holds, where the run is on one; the categories of the engine above are then those of the host alone. */
  device: DeviceMemory | null;
}

/** Memory of a GPU by category, in bytes. */
export interface DeviceMemory {
  /** The master weights in f32, and bf16. */
  weights: number;
  gradients: number;
  moments: number;
  activations: number;
  logits: number;
  scratch: number;
  /** What the driver and cuBLAS keep besides: assumed. */
  driver: number;
  /** All of it. */
  required: number;
}

/** An engine that trains on random tokens. */
export interface NativeStepTimer {
  /** Seconds of a whole step; the engine is made with the first. Rejects with OUT_OF_MEMORY_HOST. */
  step(): Promise<number>;
}

/** What this machine has of CUDA. */
export interface CudaReport {
  /** Whether this binary has CUDA inside. */
  built: boolean;
  /** The driver: its library, the newest CUDA that it knows, and its own version where the system says it. */
  driver: { path: string; cuda: string; version: string | null } | null;
  /** GPUs that this process may use; memory in bytes, the free one where it was asked for. */
  gpus: { name: string; capability: [major: number, minor: number]; total: number; free: number | null }[];
  /** CUDA's other libraries that were found. */
  libraries: { name: string; path: string }[];
  /** What pip takes to bring those that were not found, such as `nvidia-cublas>=13,<14`. */
  wheels: string[];
  /** The first thing that keeps this process from using the GPU that is meant. */
  trouble: { code: string; message: string; hint: string } | null;
}

export interface NativeBinding {
  version(): string;
  /** Whether this binary has CUDA inside. */
  hasCuda(): boolean;
  /**
   * `environments`: Python environments that may hold `nvidia-*` wheels; those of the first call count. `ordinal`: the GPU
   * that is meant.
   */
  cudaReport(environments: string[], ordinal: number): CudaReport;
  /** As `cudaReport`, with the GPUs' free memory, on a thread of its own. */
  lookAtCuda(environments: string[], ordinal: number): Promise<CudaReport>;
  /** Bytes of a GPU's memory that nobody uses; null where that cannot be said. Takes up to a second. */
  freeGpuMemory(ordinal: number): number | null;
  /** Throws CONFIG_INVALID, naming the key, for a model configuration (JSON) that the kernels of a GPU are not made for. */
  checkModelForCuda(model: string): void;
  /** File descriptors of a new pipe, the caller's to close; null where a child cannot be given one by number (Windows). */
  createPipe(): { read: number; write: number } | null;
  createLink(): NativeLink;
  createLineLink(): NativeLineLink;
  createFeed(options: FeedOptions, links: FeedLink[], tokenizer?: NativeTokenizer): NativeFeed;
  /** Reads all of a feed in file order (its `max_samples` documents) as held-out documents. */
  collectHeldOut(feed: NativeFeed, tokenizer: NativeTokenizer): Promise<NativeHeldOut>;
  /** The held-out documents of several sources as one, in their order. */
  joinHeldOut(parts: NativeHeldOut[]): NativeHeldOut;
  tokenizerFromPath(path: string): Promise<NativeTokenizer>;
  /** A rank file of tiktoken, with the pattern that belongs to it. */
  tokenizerFromRankFile(path: string, pattern: string): Promise<NativeTokenizer>;
  createTokenizerTrainer(options: string): NativeTokenizerTrainer;
  /** `options`: model, training, optimizer and schedule as in the configuration, `checkpoint`: directory to go on from or null. */
  createTrainer(options: string, feed: NativeFeed, tokenizer: NativeTokenizer): Promise<NativeTrainer>;
  loadModel(dir: string, device: string): Promise<NativeModel>;
  /** Writes a model, in the form that transformers loads, and its tokenizer into a directory. `options`: `dtype`. JSON: what it was. */
  exportModel(from: string, to: string, options: string): Promise<string>;
  /** JSON: `tokenizer`, where that of a model directory lies or null, and `vocab_size`, the rows of its embedding. */
  inspectModel(dir: string): string;
  /** Throws CONFIG_INVALID, naming the tensor, where the weights of a directory do not fit a model configuration (JSON). */
  checkWeights(dir: string, model: string): void;
  /** JSON: parameter counts of a model configuration; throws CONFIG_INVALID. */
  parameterCount(model: string): string;
  /** Throws CONFIG_INVALID. */
  createStepTimer(engine: EngineShape): NativeStepTimer;
  /** What a run will hold, by category. Throws CONFIG_INVALID. */
  estimateMemory(engine: EngineShape, surroundings: MemorySurroundings): RunMemory;
}
