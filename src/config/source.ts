import { isMap, LineCounter, parse, parseDocument } from 'yaml';
import { errorFor } from '../errors.js';
import type { CandlewickError } from '../errors.js';
import { keysAt } from './schema.js';

/** A value that a flag puts over the file's. */
export interface Override {
  /** Dotted path of the key. */
  key: string;
  value: unknown;
  /** The flag as the user knows it, for messages: `--max-steps`. */
  flag: string;
  /** Keys of the file whose place it takes. */
  instead?: readonly string[];
}

/** One thing that is wrong with a configuration. */
export interface Problem {
  path: readonly PropertyKey[];
  message: string;
  hint?: string;
  /** The problem is the key itself, not its value. */
  atKey?: boolean;
}

const HINT = 'correct it there; --print-config shows every key with its value';

/** The error for `lines`, each of which says where and what. */
export function configurationError(lines: readonly string[], hint: string = HINT): CandlewickError {
  return errorFor('CONFIG_INVALID', lines.join('\n'), hint);
}

const sections = (keysAt([]) ?? []).filter((key) => keysAt([key]) !== null);

/** A configuration as the user wrote it: values, and where each of them stands. */
export class ConfigSource {
  /** Plain values, flags included. */
  readonly values: Record<string, unknown>;
  readonly #name: string;
  readonly #document: ReturnType<typeof parseDocument>;
  readonly #lines: LineCounter;
  readonly #flags = new Map<string, string>();

  /** `name` is how messages call the file. Throws CONFIG_INVALID for text that is not one YAML map. */
  constructor(text: string, name: string, overrides: readonly Override[] = []) {
    this.#name = name;
    this.#lines = new LineCounter();
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
    if (this.#document.errors.length > 0) {
      throw configurationError(
        this.#document.errors.map((error) => {
          const [start] = error.pos;
          const word = /^[\w.-]+/.exec(text.slice(start))?.[0];
          const duplicate = error.code === 'DUPLICATE_KEY' && word !== undefined;
          return `${this.#at(start)} ${duplicate ? `${word}: the key occurs twice` : error.message}`;
        }),
        'correct the YAML there',
      );
    }
    const root: unknown = this.#document.toJS();
    if (root !== null && root !== undefined && !isMap(this.#document.contents)) {
      throw configurationError([`${this.#at(0)} expected a map of sections such as model: and data:`]);
    }
    this.values = (root ?? {}) as Record<string, unknown>;
    // `evaluation:` with nothing below it is an empty section.
    for (const key of sections) if (this.values[key] === null) delete this.values[key];
    for (const override of overrides) this.#put(override);
  }

  /** Whether a flag gave this key. */
  isOverridden(key: string): boolean {
    return this.#flags.has(key);
  }

  /** The problem as a line: where, which key, what. */
  line({ path, message, atKey }: Problem): string {
    const key = path.map(String).join('.');
    for (let length = path.length; length > 0; length--) {
      const flag = this.#flags.get(path.slice(0, length).map(String).join('.'));
      if (flag !== undefined)
        return flag === '--set' ? `--set ${key}: ${message}` : `${flag} (${key}): ${message}`;
    }
    return `${this.#at(this.#offset(path, atKey === true))} ${key === '' ? '' : `${key}: `}${message}`;
  }

  /** Problems in the order in which the file has them; those of flags first. */
  sorted(problems: readonly Problem[]): Problem[] {
    const place = ({ path, atKey }: Problem) => this.#offset(path, atKey === true) ?? -1;
    return problems.toSorted((a, b) => place(a) - place(b));
  }

  /** Offset of the key or value at `path`, or of the nearest thing above it. */
  #offset(path: readonly PropertyKey[], atKey: boolean): number | null {
    for (let length = path.length; length > 0; length--) {
      const parent: unknown = this.#document.getIn(path.slice(0, length - 1), true);
      if (isMap(parent)) {
        const pair = parent.items.find((item) => String(item.key) === String(path[length - 1]));
        // A value's place is its key's: that is what the user searches for, and an empty value has no place.
        const node = (pair?.key ?? null) as { range?: [number, number, number] | null } | null;
        if (node?.range) return node.range[0];
      } else if (!atKey) {
        const node = this.#document.getIn(path.slice(0, length), true) as {
          range?: [number, number, number];
        } | null;
        if (node?.range) return node.range[0];
      }
    }
    return null;
  }

  #at(offset: number | null): string {
    if (offset === null) return `${this.#name}:`;
    const { line, col } = this.#lines.linePos(offset);
    return `${this.#name}:${line}:${col}`;
  }

  #put({ key, value, flag, instead = [] }: Override): void {
    for (const other of instead) this.#remove(other.split('.'));
    const path = key.split('.');
    let node = this.values;
    for (const [i, part] of path.slice(0, -1).entries()) {
      const next = node[part];
      // A part of a list is set by its number, as in data.sources.1.weight.
      const isPart = !Array.isArray(next) || /^\d+$/.test(path[i + 1] ?? '');
      const map = typeof next === 'object' && next !== null && isPart ? next : {};
      node[part] = map;
      node = map as Record<string, unknown>;
    }
    node[path.at(-1) ?? ''] = value;
    this.#flags.set(key, flag);
  }

  #remove(path: readonly string[]): void {
    const parent = path.slice(0, -1).reduce<unknown>((node, part) => below(node, part), this.values);
    if (typeof parent === 'object' && parent !== null) Reflect.deleteProperty(parent, path.at(-1) ?? '');
  }
}

/** `--set a.b=c`: the key, and the value read as YAML. Throws CONFIG_INVALID naming the flag. */
export function parseSet(argument: string): Override {
  const equals = argument.indexOf('=');
  const key = argument.slice(0, equals).trim();
  const flag = `--set ${argument}`;
  if (equals < 1 || key.split('.').some((part) => !/^\w+$/.test(part))) {
    throw configurationError([`${flag}: expected key=value`], 'for example --set optimizer.lr=3e-4');
  }
  try {
    return { key, value: parse(argument.slice(equals + 1)) as unknown, flag: '--set' };
  } catch (cause) {
    const message =
      cause instanceof Error ? cause.message.replace(/( at line \d+, column \d+)?:?\n.*/s, '') : '';
    throw configurationError(
      [`${flag}: the value is not YAML: ${message}`],
      'quote the value for YAML and the shell',
    );
  }
}

function below(node: unknown, key: string): unknown {
  return typeof node === 'object' && node !== null ? Reflect.get(node, key) : undefined;
}
