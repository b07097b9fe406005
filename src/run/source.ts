import { oneSourceKeys } from '../config/index.js';
import type { Override, ResolvedConfig } from '../config/index.js';
import type { OnExhausted, OpenSource as CorpusSource } from '../corpus/index.js';

/** What a streamer's `ready` message says of its dataset. */
export interface SourceReady {
  dataset: string;
  config_name: string | null;
  split: string;
  /** Pinned commit; null for local data. */
  revision: string | null;
  text_column: string;
  /** Null, or absent where there are no templates: the text is a column. */
  text_template?: string | null;
  /** Sorted paths. */
  files: string[];
  row_groups: boolean;
  /** Rows in all, where that is cheaply known. */
  total_rows: number | null;
  /** Of Python and its libraries, by name. */
  versions?: Record<string, string>;
}

/** A source that is being read. */
export type OpenSource = Omit<CorpusSource, 'ready'> & { ready: SourceReady };

/** A corpus that is being read: one source, or those of a mixture. */
export interface OpenStream {
  sources: readonly OpenSource[];
  /** Says that this reader is done. */
  release(): void;
}

/** What the run needs of a corpus: `HuggingFaceStreamingCorpus` is one, `MultiCorpus` another. */
export interface TrainableCorpus {
  /** Name of its dataset, and its limits, which hold for the run too. */
  readonly dataset?: string;
  readonly options?: { maxSamples?: number | null | undefined; epochs?: number | null | undefined };
  /** Those of a mixture. */
  readonly members?: readonly {
    corpus: { readonly dataset: string };
    weight: number;
    onExhausted: OnExhausted;
  }[];
  open(): Promise<OpenStream>;
  close(): Promise<void>;
}

/** The keys that say which data to stream, and how. */
export type SourceConfig = Pick<
  ResolvedConfig['data'],
  | 'dataset'
  | 'config_name'
  | 'split'
  | 'text_column'
  | 'text_template'
  | 'revision'
  | 'batch_size'
  | 'python'
  | 'load_timeout'
  | 'retry_budget'
> & { sources?: ResolvedConfig['data']['sources'] };

/** Makes the corpus that a configuration names. */
export type OpenCorpus = (data: SourceConfig, hooks: SourceHooks) => TrainableCorpus;

/** Something about a source: for people, and for programs what there is besides. */
export interface SourceNotice {
  message: string;
  /** `retry` while it fails and is asked again, `recovered` at the end of that, `restart`, or `notice` for all else. */
  kind: 'notice' | 'restart' | 'retry' | 'recovered';
  attempt?: number;
  attempts?: number;
  /** Why it is asked again, in a few words. */
  cause?: string;
  /** Code of the error that a new process is started for. */
  code?: string;
  /** Seconds until it is asked again. */
  delay?: number;
  /** Seconds since it failed first. */
  waited?: number;
  /** Seconds after which it is given up. */
  budget?: number;
}

/** How a source is stopped, and whom it tells what happens to it. */
export interface SourceHooks {
  signal?: AbortSignal;
  notice?: (notice: SourceNotice) => void;
}

/** What messages call the data of a configuration. */
export function named({ dataset, sources }: SourceConfig): string {
  return sources?.map((source) => source.dataset).join(', ') ?? dataset ?? '';
}

/** What a corpus of a program puts over a configuration: what it reads, and its limits. */
export function overridesOf({ dataset, members, options = {} }: TrainableCorpus): Override[] {
  const overrides: Override[] = [];
  if (members !== undefined) {
    const value = members.map(({ corpus, weight, onExhausted }) => ({
      dataset: corpus.dataset,
      weight,
      on_exhausted: onExhausted,
    }));
    const instead = oneSourceKeys.map((key) => `data.${key}`);
    overrides.push({ key: 'data.sources', value, flag: 'corpus', instead });
  } else if (dataset !== undefined) {
    overrides.push({ key: 'data.dataset', value: dataset, flag: 'corpus', instead: ['data.sources'] });
  }
  for (const [key, value] of [
    ['data.max_samples', options.maxSamples],
    ['data.epochs', options.epochs],
  ] as const) {
    if (Number.isFinite(value)) overrides.push({ key, value, flag: 'corpus' });
  }
  return overrides;
}

/** Puts what was opened into the configuration: the pinned revisions, and for a corpus of a program (`all`) the rest too. */
export function writeSources(
  { data }: { data: ResolvedConfig['data'] },
  opened: readonly OpenSource[],
  all: boolean,
): void {
  const written: readonly { revision: string | null }[] = data.sources ?? [data];
  for (const [i, target] of written.entries()) {
    const ready = opened[i]?.ready;
    if (ready === undefined) continue;
    const { dataset, config_name, split, text_column, text_template = null, revision } = ready;
    if (all) Object.assign(target, { dataset, config_name, split, text_column, text_template, revision });
    else target.revision = revision ?? target.revision;
  }
}
