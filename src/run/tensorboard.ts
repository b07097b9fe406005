import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { crc32c } from './crc32c.js';
import { diskError } from './disk.js';
import type { EvalRow, StepRow } from './metrics.js';

/**
 * Writes rows of metrics as scalars into an event file that TensorBoard reads.
 *
 * An event file is a sequence of records: the length (uint64), its masked CRC32C, the payload, its masked CRC32C, all
 * little endian. A payload is a protocol buffer `Event`: wall time (1, double), step (2, int64) and one of file version
 * (3, string), summary (5) and session log (7). Every start of a run makes a file of its own; its second event says that
 * what earlier files have from that step on no longer counts, which is how TensorBoard takes back what a resume undid.
 */
export class EventFile {
  readonly path: string;
  readonly #descriptor: number;

  private constructor(path: string, descriptor: number) {
    this.path = path;
    this.#descriptor = descriptor;
  }

  /** Opens a new file in `directory` for a run that goes on after `step` completed updates. */
  static open(directory: string, step: number, time = Date.now() / 1000): EventFile {
    try {
      mkdirSync(directory, { recursive: true });
      for (let attempt = 0; ; attempt++) {
        // TensorBoard reads the files of a directory in the order of their names.
        const seconds = String(Math.floor(time)).padStart(10, '0');
        const name = `events.out.tfevents.${seconds}.${String(attempt).padStart(3, '0')}.${hostname()}.${process.pid}`;
        const path = join(directory, name);
        const descriptor = create(path);
        if (descriptor === null) continue;
        const file = new EventFile(path, descriptor);
        file.#write(concat(double(1, time), bytes(3, text('brain.Event:2'))));
        // SessionLog.status START (1): purges what has this step or a later one.
        file.#write(concat(double(1, time), integer(2, step + 1), bytes(7, integer(1, 1))));
        return file;
      }
    } catch (cause) {
      throw diskError(cause, directory);
    }
  }

  append(row: StepRow | EvalRow): void {
    const values = scalarsOf(row).map(([tag, value]) =>
      bytes(1, concat(bytes(1, text(tag)), single(2, value))),
    );
    this.#write(concat(double(1, row.time), integer(2, row.step), bytes(5, concat(...values))));
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #write(payload: Uint8Array): void {
    try {
      writeSync(this.#descriptor, record(payload));
    } catch (cause) {
      throw diskError(cause, this.path);
    }
  }
}

/** Opens a file that must be new; null where one has the name. */
function create(path: string): number | null {
  try {
    return openSync(path, 'ax');
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'EEXIST') return null;
    throw cause;
  }
}

/** Every number of a row under its tag: `train/loss`, `eval/bits_per_byte`, `mix/0/share`. */
function scalarsOf(row: StepRow | EvalRow): [string, number][] {
  const group = 'eval_loss' in row ? 'eval' : 'train';
  const scalars: [string, number][] = [];
  for (const [key, value] of Object.entries(row)) {
    if (key === 'step' || key === 'time') continue;
    if (typeof value === 'number') scalars.push([`${group}/${key.replace(/^eval_/, '')}`, value]);
    if (key !== 'mix' || !Array.isArray(value)) continue;
    for (const [i, { share, epoch }] of value.entries()) {
      scalars.push([`mix/${i}/share`, share], [`mix/${i}/epoch`, epoch]);
    }
  }
  return scalars;
}

/** A payload with its length and checksums. */
export function record(payload: Uint8Array): Uint8Array {
  const out = new Uint8Array(payload.length + 16);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(payload.length), true);
  view.setUint32(8, masked(out.subarray(0, 8)), true);
  out.set(payload, 12);
  view.setUint32(12 + payload.length, masked(payload), true);
  return out;
}

/** A CRC that does not cancel itself where data hold CRCs: rotated by 15 bits, plus a constant. */
function masked(data: Uint8Array): number {
  const crc = crc32c(data);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

// Fields of protocol buffers: a key (number · 8 + wire type), then the value.

function varint(value: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  do {
    out.push((rest % 128) + (rest >= 128 ? 128 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Uint8Array.from(out);
}

function integer(field: number, value: number): Uint8Array {
  return concat(varint(field * 8), varint(value));
}

function double(field: number, value: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setFloat64(0, value, true);
  return concat(varint(field * 8 + 1), out);
}

function single(field: number, value: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setFloat32(0, value, true);
  return concat(varint(field * 8 + 5), out);
}

function bytes(field: number, value: Uint8Array): Uint8Array {
  return concat(varint(field * 8 + 2), varint(value.length), value);
}

function text(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function concat(...parts: Uint8Array[]): Uint8Array {
  return Buffer.concat(parts);
}
