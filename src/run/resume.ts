import { oneSourceKeys } from '../config/index.js';
import type { ResolvedConfig, RunConfig } from '../config/index.js';
import type { CandlewickError } from '../errors.js';
import { errorFor } from '../errors.js';
import { namedCheckpoint, readState } from './checkpoint.js';
import type { Checkpoint, CheckpointStore } from './checkpoint.js';
import { samePlace } from './disk.js';
import type { StreamIdentity } from './identity.js';
import { named } from './source.js';

/** `stream.json` of a checkpoint. */
export interface StreamState {
  identity: StreamIdentity;
  /** Rolling hash, for people; the feed's state has its own. */
  hash: string | null;
  /** The native feed's own state. */
  state: string;
  /** Where the data were last started over (`--reset-stream`); null or absent: never. */
  reset?: StreamReset | null;
}

/** The last step of the stream before, and the state of the native feed then. */
export interface StreamReset {
  step: number;
  state: string;
}

/** `trainer.json` of a checkpoint. */
export interface TrainerState {
  step: number;
  tokens: number;
  documents: number;
  epoch: number;
  configuration: ResolvedConfig;
}

/** What a run goes on from. */
export interface Resumed {
  checkpoint: Checkpoint;
  stream: StreamState;
  trainer: TrainerState;
}

/** Where a run stands when its loop begins. */
export interface LoopStart {
  step: number;
  tokens: number;
  documents: number;
  epoch: number;
  hash: string | null;
  /** The checkpoint that it goes on from. */
  checkpoint: string | null;
  /** Where the data were last started over. */
  reset: StreamReset | null;
}

/**
 * Finds what to go on from, as `resume` says: `auto`, `never`, or a checkpoint or run directory. `warn` hears of
 * damaged checkpoints. Throws RESUME_MISMATCH, CHECKPOINT_CORRUPT, CONFIG_INVALID.
 */
export async function findResumed(
  resume: string,
  directory: string,
  store: CheckpointStore,
  warn: (message: string) => void,
): Promise<Resumed | null> {
  const present = await store.list();
  const skipped = (path: string, reason: string) => {
    warn(`${path} is damaged (${reason}): going back to the one before`);
  };
  let checkpoint: Checkpoint | null = null;
  if (resume === 'never') {
    if (present.length > 0) {
      throw errorFor(
        'RESUME_MISMATCH',
        `${directory} has checkpoints, and --resume is never`,
        'name another directory with --output, or use --resume auto to go on',
      );
    }
  } else if (resume === 'auto') {
    // Nothing was learned before the first step: such a run begins anew, with another configuration too.
    if (present.every(({ step }) => step === 0)) return null;
    checkpoint = await store.newest(skipped);
    if (checkpoint === null && present.length > 0) {
      throw errorFor(
        'CHECKPOINT_CORRUPT',
        `none of the ${present.length} checkpoints in ${directory} can be used`,
        'name another directory with --output to begin again',
      );
    }
  } else {
    const named = await namedCheckpoint(resume, skipped);
    if (present.length > 0 && !present.some(({ path }) => samePlace(path, named.path))) {
      throw errorFor(
        'RESUME_MISMATCH',
        `${directory} has checkpoints of its own and cannot go on from ${named.path}`,
        'name an empty directory with --output',
      );
    }
    checkpoint = named;
  }
  if (checkpoint === null) return null;
  return {
    checkpoint,
    stream: await readState<StreamState>(checkpoint.path, 'stream.json'),
    trainer: await readState<TrainerState>(checkpoint.path, 'trainer.json'),
  };
}

/** Where the loop begins; with `reset` the data start over there. */
export function startOf(resumed: Resumed | null, reset: boolean): LoopStart {
  if (resumed === null) {
    return { step: 0, tokens: 0, documents: 0, epoch: 1, hash: null, checkpoint: null, reset: null };
  }
  const { checkpoint, stream, trainer } = resumed;
  const { step, tokens, documents, epoch } = trainer;
  return {
    step,
    tokens,
    documents,
    epoch,
    hash: stream.hash,
    checkpoint: checkpoint.path,
    reset: reset ? { step, state: stream.state } : (stream.reset ?? null),
  };
}

/** Keys that a resumed run may change: limits, when to save and report, and the machine. */
const free = [
  'output',
  'data.max_samples',
  'data.epochs',
  // The stream's own state knows what was left out.
  'data.skip_steps',
  'data.batch_size',
  'data.threads',
  'data.python',
  'data.load_timeout',
  'data.retry_budget',
  'training.max_steps',
  'training.max_tokens',
  'training.max_minutes',
  // And the precision, which is that of the device.
  'training.device',
  'training.precision',
  'training.threads',
  // Results are bitwise the same.
  'training.recompute',
  'training.max_skipped_steps',
  'checkpoint',
  'evaluation.every_steps',
  'evaluation.prompt',
  'evaluation.prompts',
  'evaluation.sample_tokens',
  'logging',
];

/** One key that a run and a new configuration disagree on. */
export interface Difference {
  key: string;
  old: unknown;
  new: unknown;
}

/**
 * The configuration to go on with: `now` with what the run had resolved. `given` says which of its values were left
 * to the program: those are the run's, but for those of a stream that starts over (`reset`). Throws RESUME_MISMATCH.
 */
export function continueConfig(
  where: string,
  old: RunConfig,
  now: ResolvedConfig,
  given: RunConfig,
  reset = false,
): ResolvedConfig {
  const config = structuredClone(now);
  if (!reset) config.data = pinned(config.data, given.data, old.data);
  if (given.evaluation.revision === null) config.evaluation.revision = old.evaluation.revision;
  if (given.model.vocab_size === null) config.model.vocab_size = old.model.vocab_size;
  if (given.training.micro_batch_size === 'auto') {
    config.training.micro_batch_size = old.training.micro_batch_size as number;
  }
  // Sums depend on how they are split: with the run's own threads it goes on bitwise.
  if (given.training.threads === 'auto' && old.training.threads !== 'auto') {
    config.training.threads = old.training.threads;
  }
  const differences = differencesOf(old, config).filter(({ key }) => !reset || !isOfStream(key));
  if (differences.length > 0) throw mismatch(where, differences);
  return config;
}

/** `data` with the revisions that the run pinned, wherever none is given. */
export function pinned(
  data: ResolvedConfig['data'],
  given: RunConfig['data'],
  old: RunConfig['data'],
): ResolvedConfig['data'] {
  const sources = data.sources?.map((source, i) => {
    const before = old.sources?.[i];
    return given.sources?.[i]?.revision === null && before !== undefined
      ? { ...source, revision: before.revision }
      : source;
  });
  const revision = given.revision === null ? old.revision : data.revision;
  return { ...data, revision, sources: sources ?? null };
}

/** Keys whose change would make another run of it. */
export function differencesOf(old: RunConfig, now: RunConfig): Difference[] {
  const before = leavesOf(old);
  const after = leavesOf(now);
  const differences: Difference[] = [];
  const several = (old.data.sources?.length ?? null) !== (now.data.sources?.length ?? null);
  if (several) differences.push({ key: 'data', old: named(old.data), new: named(now.data) });
  for (const key of new Set([...before.keys(), ...after.keys()])) {
    if (free.some((prefix) => key === prefix || key.startsWith(`${prefix}.`))) continue;
    // A tokenizer that lies somewhere else may be the same: its digest decides, in `compareIdentity`.
    if (key.startsWith('tokenizer.') && now.tokenizer.path !== null) continue;
    const [a, b] = [before.get(key) ?? addedLater[key] ?? null, after.get(key) ?? null];
    // A run that ended before its tokenizer was known did not know its vocabulary either.
    if (key === 'model.vocab_size' && (a === null || b === null)) continue;
    if (/^(data\.(sources\[\d+\]\.)?|evaluation\.)revision$/.test(key) && a === null) continue;
    if (several && (key.startsWith('data.sources') || sourceKeys.has(key))) continue;
    if (JSON.stringify(a) !== JSON.stringify(b)) differences.push({ key, old: a, new: b });
  }
  return differences;
}

/** Keys that older runs do not know, with the value that they ran by. */
const addedLater: Partial<Record<string, unknown>> = {
  'training.z_loss': 0,
  'optimizer.moments': 'float32',
};

/** Whether a key says what the stream is, and nothing of the weights. */
function isOfStream(key: string): boolean {
  return /^(data$|data\.|file list|evaluation\.(documents|dataset|config_name|split|text_column|revision)$)/.test(
    key,
  );
}

/** The error for a run of another configuration or stream. */
export function mismatch(
  where: string,
  differences: readonly Difference[],
  hint = hintFor(differences),
): CandlewickError {
  const spell = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  const lines = differences.map(
    ({ key, old, new: now }) => `${key} is ${spell(old)} in the run and ${spell(now)} now`,
  );
  return errorFor(
    'RESUME_MISMATCH',
    `${where} holds a run of another configuration: ${lines.join('; ')}`,
    hint,
  );
}

function hintFor(differences: readonly Difference[]): string {
  const hint = 'name another directory with --output, or set the keys as the run has them';
  return differences.every(({ key }) => isOfStream(key))
    ? `${hint}; --reset-stream keeps the weights and starts the data over`
    : hint;
}

const sourceKeys = new Set<string>(oneSourceKeys.map((key) => `data.${key}`));

function leavesOf(value: unknown, path = '', leaves = new Map<string, unknown>()): Map<string, unknown> {
  if (Array.isArray(value) && value.some((item) => typeof item === 'object' && item !== null)) {
    for (const [i, item] of value.entries()) leavesOf(item, `${path}[${i}]`, leaves);
  } else if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    for (const [key, below] of Object.entries(value))
      leavesOf(below, path === '' ? key : `${path}.${key}`, leaves);
  } else {
    leaves.set(path, value);
  }
  return leaves;
}
