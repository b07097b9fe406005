import type { Range } from '../config/index.js';
import { errorFor } from '../errors.js';
import { readRecord } from './record.js';
import type { RunRecord, StreamCheckpoint, StreamOrigin, StreamPoint } from './record.js';
import { advance, Replay } from './replay.js';
import type { ReplayState } from './replay.js';
import type { TrainerParts } from './trainer.js';

/** Tokens replayed between two looks at the clock. */
const CHUNK_TOKENS = 1 << 19;

export interface VerifyOptions {
  /** Steps to compare, both ends included; null: all. */
  steps: Range | null;
  signal?: AbortSignal | undefined;
  say: (message: string) => void;
  warn: (message: string) => void;
  onProgress: (event: VerifyProgress) => void;
}

export interface VerifyProgress {
  type: 'progress';
  step: number;
  last: number;
  /** Since the replay began. */
  seconds: number;
  steps_per_second: number;
  /** Text read a second. */
  bytes_per_second: number;
}

/** What a comparison came to. */
export interface Verdict {
  type: 'verified';
  match: boolean;
  /** First and last step replayed. */
  from: number;
  to: number;
  /** Checkpoint that the replay began from; null: the beginning. */
  checkpoint: string | null;
  /** Places compared: rows of metrics.jsonl and checkpoints. */
  compared: number;
  /** Rolling hash where the replay ended. */
  stream_hash: string | null;
  difference: Difference | null;
}

/** The first place where run and replay disagree. */
export interface Difference {
  /** The last step known to match; 0: the beginning. What differs was trained on after it, */
  after: number;
  /** and not later than in this step. */
  step: number;
  /** Who said what the replay contradicts. */
  where: string;
  run: Pick<StreamPoint, 'hash' | 'tokens' | 'documents'>;
  /** Null where the replayed stream ends before. */
  replay: Pick<StreamPoint, 'hash' | 'tokens' | 'documents'> | null;
}

/**
 * Replays the stream of a run without training, and compares its hash at every logged step and checkpoint. Throws
 * CONFIG_INVALID, USAGE, RESUME_MISMATCH (the data or tokenizer is another), SOURCE_CORRUPT, and what the source does.
 */
export async function verifyRun(
  directory: string,
  parts: TrainerParts,
  options: VerifyOptions,
): Promise<Verdict> {
  const record = await readRecord(directory, options.warn);
  const points = pointsOf(record, options.steps);
  const [first, last] = [options.steps?.[0] ?? 1, points.at(-1)?.step ?? 0];
  if (points.length === 0) {
    throw errorFor(
      'USAGE',
      options.steps === null
        ? `${directory} has logged no step yet`
        : `${directory} has logged no step from ${first} to ${options.steps[1]}`,
      record.rows.length === 0
        ? 'train first'
        : `its rows go from step ${record.rows[0]?.step} to ${record.rows.at(-1)?.step}`,
    );
  }
  const { config, origin } = record;
  if (origin.from.reset && (options.steps === null || first <= origin.step)) {
    options.warn(`the data were started over after step ${origin.step}: only what came later is compared`);
  }
  const replay = await Replay.open({ parts, config, directory, signal: options.signal, say: options.say });
  try {
    for (const checkpoint of record.checkpoints) replay.compare(checkpoint);
    const begin = record.checkpoints.findLast(({ step }) => step < first) ?? null;
    const count = (n: number) => n.toLocaleString('en-US');
    options.say(
      `replaying steps ${count((begin ?? origin).step + 1)} to ${count(last)} from ` +
        `${begin?.path ?? 'the beginning'}, comparing at ${count(points.length)} places`,
    );
    return await compare(record, replay, points, begin, options);
  } finally {
    await replay.close();
  }
}

/** Everything that the run said of its stream at the steps asked for, in order. */
function pointsOf({ rows, checkpoints }: RunRecord, steps: Range | null): StreamPoint[] {
  const saved = checkpoints.map(({ path, step, at }) => ({ ...at, step, where: path }));
  return [...rows, ...saved]
    .filter(({ step }) => steps === null || (steps[0] <= step && step <= steps[1]))
    .sort((a, b) => a.step - b.step);
}

async function compare(
  record: RunRecord,
  replay: Replay,
  points: readonly StreamPoint[],
  begin: StreamCheckpoint | null,
  options: VerifyOptions,
): Promise<Verdict> {
  const { origin } = record;
  const { training, data } = record.config;
  const batch = training.global_batch_size * data.sequence_length;
  const chunk = Math.max(1, Math.floor(CHUNK_TOKENS / batch));
  const last = points.at(-1)?.step ?? 0;
  const verdict: Verdict = {
    type: 'verified',
    match: true,
    from: (begin ?? origin).step + 1,
    to: last,
    checkpoint: begin?.path ?? null,
    compared: 0,
    stream_hash: begin?.at.hash ?? origin.hash,
    difference: null,
  };
  const row = record.rows.find(({ step }) => step === begin?.step);
  if (begin !== null && row !== undefined && !isSame(row, begin.at)) {
    return different(verdict, { ...row, after: 0, replay: begin.at });
  }
  const ends = endsBefore(record, begin, last, batch);
  let unapplied = record.rows.reduce((sum, row) => sum + (row.unapplied ?? 0), 0);
  let at = (begin ?? origin).step;
  let agreed = at;
  let state: ReplayState | null = null;
  const limitAt = (step: number) => ends.find((end) => end.step > step);
  const feedFrom = async (from: StreamOrigin['from']) => {
    const end = limitAt(at);
    return replay.seek({ ...from, ...(end === undefined ? {} : { maxSamples: end.documents }) });
  };
  let feed = await feedFrom(begin === null ? origin.from : { state: begin.stream.state, reset: false });
  const began = performance.now();
  const bytes = replay.bytes;
  for (const point of points) {
    while (at < point.step) {
      const end = limitAt(at);
      const step = Math.min(point.step, end?.step ?? Infinity, at + chunk);
      const moved = await advance(feed, step - at);
      state = moved.state;
      at += moved.batches;
      if (at < step) return different(verdict, { ...point, after: agreed, replay: null });
      // Batches whose update was left out count with the next step.
      const missing = at === point.step ? Math.ceil((point.tokens - state.tokens) / batch) : 0;
      if (missing > 0 && missing <= unapplied) {
        unapplied -= missing;
        state = (await advance(feed, missing)).state;
      }
      if (at === end?.step) feed = await feedFrom({ state: JSON.stringify(state), reset: false });
      const seconds = (performance.now() - began) / 1000;
      options.onProgress({
        type: 'progress',
        step: at,
        last,
        seconds,
        steps_per_second: (at - verdict.from + 1) / seconds,
        bytes_per_second: (replay.bytes - bytes) / seconds,
      });
    }
    if (state === null) continue;
    verdict.compared++;
    verdict.stream_hash = state.hash;
    if (!isSame(point, state)) return different(verdict, { ...point, after: agreed, replay: state });
    agreed = point.step;
  }
  return verdict;
}

/**
 * Steps whose batch was filled up because the stream ended there, by limits that have been raised since: their tokens
 * are no whole number of batches more than before. Such a last step is always logged.
 */
function endsBefore(
  { rows, origin }: RunRecord,
  begin: StreamCheckpoint | null,
  last: number,
  batch: number,
): StreamPoint[] {
  let rest = (begin?.at.tokens ?? origin.tokens) % batch;
  return rows.filter(({ step, tokens }) => {
    if (step <= (begin ?? origin).step || step > last || tokens % batch === rest) return false;
    rest = tokens % batch;
    return true;
  });
}

type Counts = Pick<StreamPoint, 'hash' | 'tokens' | 'documents'>;

function isSame(a: Counts, b: Counts): boolean {
  return a.hash === b.hash && a.tokens === b.tokens && a.documents === b.documents;
}

function different(
  verdict: Verdict,
  { step, where, after, replay, ...run }: StreamPoint & { after: number; replay: Counts | null },
): Verdict {
  const counts = ({ hash, tokens, documents }: Counts) => ({ hash, tokens, documents });
  const difference = {
    after,
    step,
    where,
    run: counts(run),
    replay: replay === null ? null : counts(replay),
  };
  return { ...verdict, match: false, difference };
}
