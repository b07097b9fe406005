/** What the streamer says besides data: the control messages of its protocol, version 1. */
import { errorFor } from '../errors.js';

/** Start-up goes on: what is being done now, and seconds since the process started. */
export interface LoadingMessage {
  kind: 'loading';
  phase: 'imports' | 'dataset' | 'files';
  seconds: number;
}

/** The dataset is open. */
export interface ReadyMessage {
  kind: 'ready';
  dataset: string;
  config_name: string | null;
  split: string;
  /** Commit that a hub dataset is pinned to; null for what lies on this machine. */
  revision: string | null;
  text_column: string;
  /** Columns joined to a text; null or absent: the text is a column. */
  text_template?: string | null;
  columns: string[];
  /** Paths in the dataset, sorted; their order and spelling are part of the stream's identity. */
  files: string[];
  /** Whether every file is read by row group. */
  row_groups: boolean;
  /** Rows of the split, where that is cheaply known. */
  total_rows: number | null;
  versions: Record<string, string>;
}

/** Something that people should know. */
export interface ProgressMessage {
  kind: 'progress';
  message: string;
}

/** The process lives. */
export interface HeartbeatMessage {
  kind: 'heartbeat';
  /** Unix seconds. */
  time: number;
  /** Requests that are not answered yet. */
  waiting?: number;
  /** Bytes read so far: they grow while something is done. */
  fetched?: number;
}

/** A request failed, or the process gives up. */
export interface ErrorMessage {
  kind: 'error';
  code: string;
  message: string;
  hint: string;
  /** The message in a few words. */
  cause?: string;
  /** Whether asking again, or a new process, may do better. */
  retryable: boolean;
  /** How often in a row that is worth trying; null: as long as the budget lasts. */
  attempts?: number | null;
  /** Seconds that the source asks to wait; null where it does not say. */
  retry_after?: number | null;
  /** Whether the process lives on and waits to be told to try again. */
  waits?: boolean;
  /** Class of the Python exception. */
  class: string;
  /** Request that failed; null while loading. */
  id: number | null;
}

/** A clean end. */
export interface DoneMessage {
  kind: 'done';
  /** Rows sent. */
  total: number;
}

export type ControlMessage =
  | LoadingMessage
  | ReadyMessage
  | ProgressMessage
  | HeartbeatMessage
  | ErrorMessage
  | DoneMessage;

/** Control messages as the native link returns them: a JSON array of objects with `kind`, or null for none. */
export function parseMessages(json: string | null): ControlMessage[] {
  if (json === null) return [];
  return (JSON.parse(json) as ControlMessage[]).map(checked);
}

function checked(message: ControlMessage): ControlMessage {
  const complete =
    message.kind === 'ready'
      ? Array.isArray(message.files) && typeof message.row_groups === 'boolean'
      : message.kind !== 'error' || (typeof message.code === 'string' && typeof message.message === 'string');
  if (complete) return message;
  throw errorFor(
    'PROTOCOL_VIOLATION',
    `the streamer sent an incomplete ${message.kind} message`,
    'was streamer.py changed, or is it of another version of candlewick?',
  );
}
