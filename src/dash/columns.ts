/** The numbers of a metrics file by column, read so that a million rows take a second. */

/** Numbers in a row, that grow at the end; `NaN` where a row has none. */
export class Column {
  #values = new Float64Array(1024);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The values so far; valid until the next `set`. */
  get values(): Float64Array {
    return this.#values.subarray(0, this.#length);
  }

  at(row: number): number {
    return this.#values[row] ?? Number.NaN;
  }

  /** Sets the value of `row`, which is the last or a later one. */
  set(row: number, value: number): void {
    if (row > this.#length) this.fill(row);
    if (row >= this.#values.length) this.#reserve(row + 1);
    this.#values[row] = value;
    this.#length = row + 1;
  }

  /** Forgets the values from `row` on. */
  cut(row: number): void {
    this.#length = Math.min(this.#length, row);
  }

  /** Makes the column `rows` long. */
  fill(rows: number): void {
    if (rows <= this.#length) return;
    this.#reserve(rows);
    this.#values.fill(Number.NaN, this.#length, rows);
    this.#length = rows;
  }

  #reserve(size: number): void {
    if (size <= this.#values.length) return;
    const larger = new Float64Array(Math.max(size, this.#values.length * 2));
    larger.set(this.#values);
    this.#values = larger;
  }
}

/** Rows of one kind (steps, or evaluations) as columns. */
export class Table {
  readonly columns = new Map<string, Column>();
  rows = 0;

  column(name: string): Column {
    let column = this.columns.get(name);
    if (column === undefined) {
      column = new Column();
      this.columns.set(name, column);
    }
    return column;
  }

  /** Ends a row: columns that it did not name hold `NaN`. */
  endRow(): void {
    this.rows++;
    for (const column of this.columns.values()) column.fill(this.rows);
  }
}

/** Where a row's numbers go, one after the other: a line of the same keys as the one before needs no look-up. */
interface Slot {
  /** The bytes up to the number, from the end of the one before: `,"lr":`. */
  key: Uint8Array;
  column: Column | null;
}

const QUOTE = 0x22;
const NEWLINE = 0x0a;
const ZERO = 0x30;
const NINE = 0x39;
const MINUS = 0x2d;
const PLUS = 0x2b;
const DOT = 0x2e;
const COMMA = 0x2c;
const LOWER_E = 0x65;
/** A mantissa from here on takes no more digits. */
const LARGE = 1e14;

/**
 * Parses lines of `metrics.jsonl` into two tables. Rows of a kind have the same keys in the same order, nearly always:
 * the bytes between the numbers are compared with those of the row before, and numbers are read in place. Whatever
 * looks different goes through `JSON.parse`.
 */
export class RowParser {
  readonly steps = new Table();
  readonly evaluations = new Table();
  readonly #slots = new Map<Table, Slot[]>();

  /** Reads the whole lines in `bytes`; returns how many bytes they have. Lines that are not rows are passed over. */
  push(bytes: Buffer): number {
    let start = 0;
    for (;;) {
      const end = bytes.indexOf(NEWLINE, start);
      if (end === -1) return start;
      if (!this.#fast(bytes, start, end, this.steps) && !this.#fast(bytes, start, end, this.evaluations)) {
        this.#slow(bytes.subarray(start, end));
      }
      start = end + 1;
    }
  }

  #fast(bytes: Buffer, start: number, end: number, table: Table): boolean {
    const slots = this.#slots.get(table);
    if (slots === undefined) return false;
    if (readRow(bytes, start, end, slots, table.rows)) {
      table.endRow();
      return true;
    }
    for (const { column } of slots) column?.cut(table.rows);
    return false;
  }

  #slow(line: Buffer): void {
    const text = line.toString('utf8');
    let row: unknown;
    try {
      row = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof row !== 'object' || row === null || !('step' in row) || typeof row.step !== 'number') return;
    const table = 'eval_loss' in row ? this.evaluations : this.steps;
    const leaves = leavesOf(row);
    for (const [name, value] of leaves)
      if (typeof value === 'number') table.column(name).set(table.rows, value);
    table.endRow();
    const slots = slotsOf(text, leaves, table);
    if (slots === null) this.#slots.delete(table);
    else this.#slots.set(table, slots);
  }
}

/** Reads one row into its columns; false where the line looks different, with some of them set. */
function readRow(bytes: Buffer, start: number, end: number, slots: readonly Slot[], row: number): boolean {
  let at = start;
  for (let slot = 0; slot < slots.length; slot++) {
    const { key, column } = slots[slot] as Slot;
    const { length } = key;
    for (let i = 0; i < length; i++) if (bytes[at + i] !== key[i]) return false;
    at += length;
    if (column === null) {
      // Text: its value is of no interest. Where it has an escape, the next key does not match.
      at = bytes.indexOf(QUOTE, at);
      if (at === -1 || at >= end) return false;
      continue;
    }
    const next = number.read(bytes, at);
    if (next === at) return false;
    column.set(row, number.value);
    at = next;
  }
  // What is left are closing brackets.
  return end - at <= 8 && !bytes.subarray(at, end).includes(COMMA);
}

/** Numbers and texts of a row under dotted names, in order. */
function leavesOf(value: unknown, path = '', leaves: [string, unknown][] = []): [string, unknown][] {
  if (typeof value === 'object' && value !== null) {
    for (const [key, below] of Object.entries(value))
      leavesOf(below, path === '' ? key : `${path}.${key}`, leaves);
  } else {
    leaves.push([path, value]);
  }
  return leaves;
}

/** What the next line should look like, or null where this one is not written as we write them. */
function slotsOf(text: string, leaves: readonly [string, unknown][], table: Table): Slot[] | null {
  const slots: Slot[] = [];
  let at = 0;
  for (const [name, value] of leaves) {
    if (typeof value !== 'number' && typeof value !== 'string') return null;
    const written = JSON.stringify(value);
    const key = JSON.stringify(name.slice(name.lastIndexOf('.') + 1));
    const keyed = text.indexOf(`${key}:${written}`, at);
    const from = keyed === -1 ? text.indexOf(written, at) : keyed + key.length + 1;
    if (from === -1) return null;
    const isText = typeof value === 'string';
    slots.push({
      key: Uint8Array.from(Buffer.from(text.slice(at, isText ? from + 1 : from))),
      column: isText ? null : table.column(name),
    });
    // The closing quote of a text belongs to the next key.
    at = from + written.length - (isText ? 1 : 0);
  }
  return slots;
}

/** Powers of ten that are exact. */
const powers = Float64Array.from({ length: 23 }, (_, power) => 10 ** power);

/** Reads decimal numbers out of bytes. An object, so that a value comes back without being allocated. */
const number = {
  value: 0,

  /** Sets `value`; returns the position after the number, or `at` where there is none. */
  read(bytes: Uint8Array, at: number): number {
    let position = at;
    let byte = bytes[position] as number;
    const negative = byte === MINUS;
    if (negative) byte = bytes[++position] as number;
    const first = position;
    let mantissa = 0;
    let exponent = 0;
    while (byte >= ZERO && byte <= NINE) {
      // Beyond 2^53 digits only scale: 15 of them are more than a curve shows.
      if (mantissa < LARGE) mantissa = mantissa * 10 + (byte - ZERO);
      else exponent++;
      byte = bytes[++position] as number;
    }
    if (position === first) return at;
    if (byte === DOT) {
      byte = bytes[++position] as number;
      while (byte >= ZERO && byte <= NINE) {
        if (mantissa < LARGE) {
          mantissa = mantissa * 10 + (byte - ZERO);
          exponent--;
        }
        byte = bytes[++position] as number;
      }
    }
    if (byte === LOWER_E) {
      byte = bytes[++position] as number;
      const minus = byte === MINUS;
      if (minus || byte === PLUS) byte = bytes[++position] as number;
      let power = 0;
      while (byte >= ZERO && byte <= NINE) {
        power = power * 10 + (byte - ZERO);
        byte = bytes[++position] as number;
      }
      exponent += minus ? -power : power;
    }
    const scaled =
      exponent === 0
        ? mantissa
        : exponent < 0
          ? mantissa / (powers[-exponent] ?? 10 ** -exponent)
          : mantissa * (powers[exponent] ?? 10 ** exponent);
    this.value = negative ? -scaled : scaled;
    return position;
  },
};
