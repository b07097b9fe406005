import { mkdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { runSchema } from '../config/index.js';
import type { RunConfig } from '../config/index.js';
import { errorFor } from '../errors.js';
import { errnoOf, exists, namesIn, onDisk, replaceFile } from './disk.js';
import { Lock } from './lock.js';

/** The files of a run, held by this process until `release`. */
export class RunDirectory {
  readonly path: string;
  readonly #lock: Lock;
  /** It is new: nothing in it was there before this process. */
  readonly #isNew: boolean;

  private constructor(path: string, lock: Lock, isNew: boolean) {
    this.path = path;
    this.#lock = lock;
    this.#isNew = isNew;
  }

  /** Makes the directory and takes its lock. Throws NOT_WRITABLE, DISK_FULL, OUTPUT_IN_USE. */
  static async open(path: string): Promise<RunDirectory> {
    const made = await onDisk(path, () => mkdir(path, { recursive: true }));
    const lock = await Lock.acquire(join(path, 'run.lock'), path);
    return new RunDirectory(path, lock, made !== undefined);
  }

  get config(): string {
    return join(this.path, 'config.yaml');
  }

  /** What was asked for, before anything was decided. */
  get input(): string {
    return join(this.path, 'config.input.yaml');
  }

  get environment(): string {
    return join(this.path, 'env.json');
  }

  get events(): string {
    return join(this.path, 'events.jsonl');
  }

  get log(): string {
    return join(this.path, 'train.log');
  }

  get samples(): string {
    return join(this.path, 'samples.md');
  }

  /** A file of this name stops the run. */
  get stop(): string {
    return join(this.path, 'STOP');
  }

  get metrics(): string {
    return join(this.path, 'metrics.jsonl');
  }

  get tensorboard(): string {
    return join(this.path, 'tensorboard');
  }

  get checkpoints(): string {
    return join(this.path, 'checkpoints');
  }

  get tokenizer(): string {
    return join(this.path, 'tokenizer');
  }

  /** The configuration of the run that lies here, or null for a new directory. Throws CONFIG_INVALID, RESUME_MISMATCH. */
  async readConfig(): Promise<RunConfig | null> {
    const config = await readRunConfig(this.path);
    if (config !== null) return config;
    for (const name of ['checkpoints', 'metrics.jsonl', 'tokenizer.json', 'tokenizer', 'model.safetensors']) {
      if (await exists(join(this.path, name))) {
        throw errorFor(
          'RESUME_MISMATCH',
          `${this.path} holds ${name} and no config.yaml: it is not the directory of a run`,
          'name another directory with --output',
        );
      }
    }
    return null;
  }

  /** Writes `config.yaml`, all of it or nothing. */
  async writeConfig(yaml: string): Promise<void> {
    await replaceFile(this.config, yaml);
  }

  /** Writes what was asked for, and where it runs. */
  async writeOrigin(input: string, environment: string): Promise<void> {
    await replaceFile(this.input, input);
    await replaceFile(this.environment, environment);
  }

  /** Gives the directory free. One that was made for nothing, without even a tokenizer in it, goes. */
  async release(): Promise<void> {
    const names = this.#isNew ? await namesIn(this.path) : [];
    const words = [this.config, this.input, this.environment, this.events, this.log];
    const isLock = (name: string) => name.startsWith('run.lock');
    const nothing = names.every((name) => isLock(name) || words.includes(join(this.path, name)));
    if (this.#isNew && nothing) for (const path of words) await rm(path, { force: true });
    this.#lock.release();
    if (this.#isNew && nothing) await rmdir(this.path).catch(() => undefined);
  }
}

/** The resolved configuration of a run directory, or null where there is none. Throws CONFIG_INVALID. */
export async function readRunConfig(directory: string): Promise<RunConfig | null> {
  const path = join(directory, 'config.yaml');
  try {
    return runSchema.parse(parse(await readFile(path, 'utf8')));
  } catch (cause) {
    if (errnoOf(cause) === 'ENOENT') return null;
    throw errorFor(
      'CONFIG_INVALID',
      `${path} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      'restore the file, or name another directory with --output',
      cause,
    );
  }
}
