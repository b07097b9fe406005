import { stat } from 'node:fs/promises';
import { loadConfig, rangesOf } from '../config/index.js';
import type { Range, ResolvedConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import type { BatchSpan, NativeBatch } from '../native/binding.js';
import { errnoOf } from './disk.js';
import { readRecord } from './record.js';
import type { StreamCheckpoint } from './record.js';
import { advance, Replay } from './replay.js';
import type { TrainerParts } from './trainer.js';

/** Batches passed over between two words about it. */
const CHUNK = 64;

export interface PeekOptions {
  /** Global batch, from 1. */
  batch: number;
  signal?: AbortSignal | undefined;
  say: (message: string) => void;
  warn: (message: string) => void;
  /** Batches passed over so far, of how many. */
  onProgress: (done: number, all: number) => void;
}

/** A place in a batch: sequence and token in it, from 0. */
export interface BatchPlace {
  row: number;
  column: number;
}

/** A document of a batch. */
export interface PeekedDocument {
  dataset: string;
  file: string;
  /** Null for a file that is not read by row group. */
  row_group: number | null;
  /** Row of the row group; of the file where there is none. */
  row: number;
  epoch: number;
  /** Tokens of the whole document, end-of-text included. */
  length: number;
  /** Its first token in the batch, counted in the document. */
  offset: number;
  /** Its inputs in the batch. */
  tokens: number;
  begin: BatchPlace;
  /** Of its last token in the batch. */
  end: BatchPlace;
  /** What its tokens in the batch spell. */
  text: string;
  ids: number[];
  spellings: string[];
}

/** A global batch of a stream. */
export interface PeekedBatch {
  type: 'batch';
  batch: number;
  /** The step that trains on it; null for a batch that is left out. */
  step: number | null;
  rows: number;
  sequence_length: number;
  /** Targets that count. */
  targets: number;
  /** Rolling hash after it. */
  stream_hash: string;
  /** Checkpoint that reading began from; null: the beginning. */
  checkpoint: string | null;
  documents: PeekedDocument[];
}

/**
 * The documents of a global batch of a run, or of the stream that a configuration describes. Throws CONFIG_INVALID,
 * TOKENIZER_INVALID, RESUME_MISMATCH, USAGE for a batch past the end, and what the source does.
 */
export async function peekBatch(
  path: string,
  parts: TrainerParts,
  options: PeekOptions,
): Promise<PeekedBatch> {
  const { batch, signal, say, warn, onProgress } = options;
  const isRun = await isDirectory(path);
  const record = isRun ? await readRecord(path, warn) : null;
  const config = record?.config ?? (await loadConfig(path)).config;
  const begin =
    record?.checkpoints.findLast((checkpoint) => batchesBefore(checkpoint, config) < batch) ?? null;
  const origin = record?.origin ?? null;
  if (origin !== null && batch <= origin.batches) {
    throw errorFor(
      'USAGE',
      `the data were started over after batch ${origin.batches}: batch ${batch} is of the stream before`,
      `name a batch from ${origin.batches + 1} on`,
    );
  }
  const replay = await Replay.open({ parts, config, directory: isRun ? path : null, signal, say });
  try {
    if (begin !== null) replay.compare(begin);
    const before = begin === null ? (origin?.batches ?? 0) : batchesBefore(begin, config);
    say(`reading batch ${batch.toLocaleString('en-US')} from ${begin?.path ?? 'the beginning'}`);
    // Batches that a run leaves out can be looked at too: only those that the state has behind it are passed over.
    const from = begin === null ? origin?.from : { state: begin.stream.state, reset: false };
    const feed = await replay.seek({
      state: null,
      ...from,
      skip: begin?.at.skipped ?? origin?.skipped ?? [],
    });
    for (let at = before; at < batch - 1; ) {
      const count = Math.min(CHUNK, batch - 1 - at);
      const { batches } = await advance(feed, count);
      at += batches;
      if (batches < count) throw pastTheEnd(batch, at);
      onProgress(at - before, batch - 1 - before);
    }
    const found = await feed.nextBatch();
    if (found === null) throw pastTheEnd(batch, batch - 1);
    const spans = JSON.parse(await feed.spans()) as BatchSpan[];
    return {
      type: 'batch',
      batch,
      step: stepOf(batch, rangesOf(config.data.skip_steps)),
      rows: config.training.global_batch_size,
      sequence_length: config.data.sequence_length,
      targets: found.counted,
      stream_hash: found.hash,
      checkpoint: begin?.path ?? null,
      documents: spans.map((span) => documentOf(span, found, replay)),
    };
  } finally {
    await replay.close();
  }
}

function documentOf(span: BatchSpan, { inputs }: NativeBatch, replay: Replay): PeekedDocument {
  const { sources, tokenizer, config } = replay.stream;
  const ready = sources[span.source]?.ready;
  if (ready === undefined)
    throw errorFor('INTERNAL', 'a document of no source', 'report this with config.yaml');
  const { epoch, group, row, length, offset, start, tokens } = span;
  const width = config.data.sequence_length;
  const place = (index: number) => ({ row: Math.floor(index / width), column: index % width });
  const ids = inputs.subarray(start, start + tokens);
  const isWhole = offset + tokens === length;
  return {
    dataset: ready.dataset,
    file: ready.files[span.file] ?? '',
    row_group: ready.row_groups ? group : null,
    // A file without row groups is read in turns of 1,000 rows.
    row: ready.row_groups ? row : group * 1000 + row,
    epoch,
    length,
    offset,
    tokens,
    begin: place(start),
    end: place(start + tokens - 1),
    text: tokenizer.decode(isWhole ? ids.subarray(0, -1) : ids, false),
    ids: [...ids],
    spellings: [...ids].map((id) => tokenizer.decode(Uint32Array.of(id), false)),
  };
}

/** States of version 1 did not count batches: nothing was left out then. */
function batchesBefore({ at }: StreamCheckpoint, { training, data }: ResolvedConfig): number {
  return at.batches ?? Math.ceil(at.tokens / (training.global_batch_size * data.sequence_length));
}

function stepOf(batch: number, skip: readonly Range[]): number | null {
  const isLeftOut = (n: number) => skip.some(([first, last]) => first <= n && n <= last);
  if (isLeftOut(batch)) return null;
  const leftOut = new Set<number>();
  for (const [first, last] of skip) for (let n = first; n <= Math.min(last, batch); n++) leftOut.add(n);
  return batch - leftOut.size;
}

function pastTheEnd(batch: number, last: number) {
  return errorFor(
    'USAGE',
    `there is no batch ${batch}: the stream ends after batch ${last}`,
    `name a batch from 1 to ${last}`,
  );
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return false;
    throw cause;
  }
}
