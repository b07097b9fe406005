import type { ResolvedConfig } from '../config/index.js';
import type { SourceIdentity } from '../corpus/index.js';
import type { FeedLink } from '../native/binding.js';

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
}

/** A source that is being read. */
export interface OpenSource {
  link: FeedLink;
  ready: SourceReady;
  /** What makes it this source, where that is more than `ready` says. */
  identity?: SourceIdentity;
  /** Says that this reader is done. */
  release(): void;
}

/** What the run needs of a corpus: `HuggingFaceStreamingCorpus` is one. */
export interface TrainableCorpus {
  /** Name of its dataset, and its limits, which hold for the run too. */
  readonly dataset?: string;
  readonly options?: { maxSamples?: number | null | undefined; epochs?: number | null | undefined };
  open(): Promise<OpenSource>;
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
>;

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
