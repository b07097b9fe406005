import type { EvalRow, SourceShare, StepRow } from './metrics.js';
import type { SourceNotice } from './source.js';
import type { StopNotice } from './stops.js';

/** What a run tells while it runs. */
export type TrainerEvent =
  | ({ type: 'step' } & StepRow)
  | ({ type: 'eval' } & EvalRow & { unigram_bits_per_byte: number; gzip_bits_per_byte: number })
  | {
      type: 'checkpoint';
      step: number;
      path: string;
      bytes: number;
      /** Until it was complete and read back. */
      seconds: number;
      /** For which no step was made; the rest went on beside the steps. */
      held_seconds: number;
      /** Whether it was written from a copy in memory; false where there was no memory for one. */
      copied: boolean;
    }
  | { type: 'sample'; step: number; prompt: string; text: string }
  | ({ type: 'source' } & Partial<SourceNotice> & { message: string })
  | SkippedEvent
  | SpikeEvent
  | StopNotice
  | DoneEvent;

/** No update was made from a batch, because its loss or gradient was not finite; the batch is consumed. */
export interface SkippedEvent {
  type: 'skipped';
  /** Completed updates. */
  step: number;
  /** Null where it is not finite. */
  loss: number | null;
  grad_norm: number | null;
  /** How many in a row, this one included. */
  in_a_row: number;
  /** `training.max_skipped_steps`: with so many in a row the run has diverged. */
  limit: number;
}

/** A row's loss is far above those of the rows before it. Nothing is done about it. */
export interface SpikeEvent {
  type: 'spike';
  step: number;
  loss: number;
  /** Mean of up to 100 rows before. */
  mean: number;
  /** How many of their standard deviations the loss lies above it. */
  z: number;
}

/** The last event of a run. */
export interface DoneEvent {
  type: 'done';
  /** `limit`: as far as it should go; `ended`: the data ended before; `stopped`: it can go on. */
  reason: 'limit' | 'ended' | 'stopped';
  step: number;
  tokens: number;
  documents: number;
  /** Rolling hash of every target consumed; null before the first step. */
  stream_hash: string | null;
  /** What each source gave, where there are several and a step was made. */
  mix?: SourceShare[];
  /** The newest checkpoint; null when there is none. */
  checkpoint: string | null;
}

/** What happens before the first step. */
export type SetupEvent =
  | { type: 'phase'; phase: 'data' | 'held-out' | 'evaluation' | 'tokenizer' | 'model'; message: string }
  | {
      type: 'tokenizer';
      documents: number;
      bytes: number;
      merges: number;
      target: number;
      /** Documents there are to count, where that is known. */
      limit: number | null;
      seconds: number;
      samples_per_second: number;
      bytes_per_second: number;
      /** Of the phase; null where it is not known. */
      eta_seconds: number | null;
    }
  | ({ type: 'source' } & SourceNotice)
  | StopNotice
  | { type: 'warning'; message: string };

/** An event of the native trainer, as it comes over; `notice` is put among them by the source's supervisor. */
export type NativeEvent =
  | {
      type: 'step';
      step: number;
      loss: number;
      grad_norm: number;
      lr: number;
      tokens: number;
      documents: number;
      epoch: number;
      mix?: SourceShare[];
      seconds: number;
      data_wait_seconds: number;
      stream_hash: string;
    }
  | { type: 'paused'; step: number; reason: 'target' | 'stopped' | 'ended' | 'limit' }
  | { type: 'eval'; step: number; nats: number; targets: number }
  /** What follows a prompt. */
  | { type: 'sample'; step: number; ids: number[] }
  /** Batches that were left out before the next step; `last` is counted from 1. */
  | { type: 'left_out'; last: number; batches: number; tokens: number; documents: number }
  | (SkippedEvent & { tokens: number; seconds: number; data_wait_seconds: number })
  | { type: 'waiting'; seconds: number }
  | ({ type: 'notice' } & SourceNotice)
  | { type: 'error'; code: string; message: string; hint: string };
