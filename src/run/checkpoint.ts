import { readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errorFor } from '../errors.js';
import { disk, exists, namesIn, onDisk, sha256, sha256File, sizesIn } from './disk.js';
import type { Disk } from './disk.js';
import { retained } from './retention.js';
import type { Retention } from './retention.js';

/** Version of the checkpoint's layout. The first one's manifest did not vouch for itself; it is read. */
export const CHECKPOINT_FORMAT = 2;

/** `manifest.json`, written last: a directory without one that verifies is no checkpoint. */
export interface Manifest {
  format: number;
  step: number;
  /** SHA-256 of the configuration that wrote it. */
  configuration: string;
  /** Unix seconds. */
  created: number;
  files: Record<string, { bytes: number; sha256: string }>;
  /** SHA-256 of the manifest before this key was put in, as compact JSON. */
  sha256?: string;
}

/** A checkpoint whose files are all as its manifest says. */
export interface Checkpoint {
  path: string;
  step: number;
  manifest: Manifest;
}

/** What is to be kept, given the steps that there are checkpoints of. */
export type RetentionOf = (steps: readonly number[]) => Retention;

const NAME = /^step-(\d{8,})$/;

/** The checkpoints of one run directory. */
export class CheckpointStore {
  readonly #root: string;
  readonly #disk: Disk;

  constructor(root: string, on: Disk = disk) {
    this.#root = root;
    this.#disk = on;
  }

  /** Directories that are named like checkpoints, newest first; whether they verify is another question. */
  async list(): Promise<{ path: string; step: number }[]> {
    const found: { path: string; step: number }[] = [];
    for (const name of await namesIn(this.#root)) {
      const step = NAME.exec(name)?.[1];
      if (step !== undefined) found.push({ path: join(this.#root, name), step: Number(step) });
    }
    return found.sort((a, b) => b.step - a.step);
  }

  /** The newest checkpoint that verifies; `skipped` hears of each newer one that does not, and why. */
  async newest(skipped: (path: string, reason: string) => void): Promise<Checkpoint | null> {
    for (const { path } of await this.list()) {
      const result = await verify(path);
      if ('manifest' in result) return result;
      skipped(path, result.reason);
    }
    return null;
  }

  /**
   * Writes a checkpoint: `write` fills a temporary directory, and only when all of it is on the device, with a
   * manifest, does it get its name. Then those that `retention` does not keep are deleted. `write` returns what it
   * knows of its files: those are synced and digested. Throws DISK_FULL, NOT_WRITABLE, CHECKPOINT_CORRUPT.
   */
  async save(
    step: number,
    configuration: string,
    retention: RetentionOf,
    write: (directory: string) => Promise<Manifest['files']>,
  ): Promise<Checkpoint> {
    const path = join(this.#root, `step-${String(step).padStart(8, '0')}`);
    const temporary = `${path}.tmp`;
    return onDisk(path, async () => {
      try {
        await this.#disk.makeDirectory(this.#root);
        await this.#disk.remove(temporary);
        await this.#disk.makeDirectory(temporary);
        const known = await write(temporary);
        await this.#seal(temporary, step, configuration, known);
        // Only a broken one can be in the way, or one of step 0: any other would have been resumed.
        if (await exists(path)) await this.#disk.remove(path);
        await this.#disk.rename(temporary, path);
        await this.#disk.sync(this.#root);
      } catch (cause) {
        await this.#disk.remove(temporary).catch(() => undefined);
        throw cause;
      }
      const written = await verify(path);
      if (!('manifest' in written)) {
        throw errorFor(
          'CHECKPOINT_CORRUPT',
          `${path} does not read back as it was written: ${written.reason}`,
          'check the disk; older checkpoints were kept',
        );
      }
      await this.prune(step, retention);
      return written;
    });
  }

  /** Sets checkpoints after `step` aside: the run goes on from there on another course. They go with the next save. */
  async abandonAfter(step: number): Promise<void> {
    for (const found of await this.list()) {
      if (found.step <= step) continue;
      await this.#disk.remove(`${found.path}.abandoned`);
      await this.#disk.rename(found.path, `${found.path}.abandoned`);
    }
  }

  /** Deletes what an interrupted save or deletion left behind. */
  async clean(): Promise<void> {
    for (const name of await namesIn(this.#root)) {
      if (name.startsWith('step-') && name.endsWith('.tmp')) await this.#disk.remove(join(this.#root, name));
    }
  }

  /**
   * Deletes what `retention` does not keep. `newest` is the step of a checkpoint that was verified: it stays, so that the
   * last good one is never among the deleted.
   */
  async prune(newest: number, retention: RetentionOf): Promise<void> {
    const older = (await this.list()).filter(({ step }) => step <= newest);
    const steps = older.map(({ step }) => step);
    const kept = retained(steps, retention(steps)).add(newest);
    const abandoned = (await namesIn(this.#root)).filter((name) => name.endsWith('.abandoned'));
    const surplus = [
      ...older.filter(({ step }) => !kept.has(step)).map(({ path }) => path),
      ...abandoned.map((name) => join(this.#root, name)),
    ];
    for (const path of surplus) {
      const doomed = `${path}.tmp`;
      await this.#disk.remove(doomed);
      await this.#disk.rename(path, doomed);
      await this.#disk.remove(doomed);
    }
  }

  async #seal(
    directory: string,
    step: number,
    configuration: string,
    known: Manifest['files'],
  ): Promise<void> {
    const files: Manifest['files'] = {};
    for (const [name, bytes] of await sizesIn(directory)) {
      const digest = known[name];
      if (digest === undefined) await this.#disk.sync(join(directory, name));
      files[name] = digest ?? { bytes, sha256: await sha256File(join(directory, name)) };
    }
    const manifest: Manifest = {
      format: CHECKPOINT_FORMAT,
      step,
      configuration,
      created: Math.floor(Date.now() / 1000),
      files,
    };
    manifest.sha256 = sha256(JSON.stringify(manifest));
    await this.#disk.writeFile(join(directory, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
    await this.#disk.sync(directory);
  }
}

/** Reads every file of a checkpoint against its manifest. */
export async function verify(path: string): Promise<Checkpoint | { reason: string }> {
  let manifest: Manifest;
  try {
    manifest = JSON.parse(await readFile(join(path, 'manifest.json'), 'utf8')) as Manifest;
  } catch (cause) {
    const missing = cause instanceof Error && 'code' in cause && cause.code === 'ENOENT';
    return { reason: missing ? 'manifest.json is missing' : 'manifest.json cannot be read' };
  }
  const { sha256: own, ...content } = manifest;
  if (content.format !== CHECKPOINT_FORMAT && content.format !== 1)
    return { reason: `manifest.json is of format ${manifest.format}, not ${CHECKPOINT_FORMAT}` };
  if (content.format !== 1 && own !== sha256(JSON.stringify(content)))
    return { reason: 'manifest.json has another checksum' };
  if (typeof manifest.files !== 'object' || manifest.files === null || !Number.isInteger(manifest.step)) {
    return { reason: 'manifest.json is incomplete' };
  }
  const sizes = await sizesIn(path);
  for (const [name, { bytes, sha256 }] of Object.entries(manifest.files)) {
    const size = sizes.get(name);
    if (size === undefined) return { reason: `${name} is missing` };
    if (size !== bytes) return { reason: `${name} has ${size} bytes instead of ${bytes}` };
    if ((await sha256File(join(path, name))) !== sha256) return { reason: `${name} has another checksum` };
  }
  return { path, step: manifest.step, manifest };
}

/** The checkpoint that a user named: itself, or the newest of a run directory. Throws CHECKPOINT_CORRUPT, CONFIG_INVALID. */
export async function namedCheckpoint(
  path: string,
  skipped: (path: string, reason: string) => void,
): Promise<Checkpoint> {
  const isRun = await exists(join(path, 'checkpoints'));
  if (isRun) {
    const newest = await new CheckpointStore(join(path, 'checkpoints')).newest(skipped);
    if (newest !== null) return newest;
  } else if (await exists(path)) {
    const result = await verify(path);
    if ('manifest' in result) return result;
    throw errorFor('CHECKPOINT_CORRUPT', `${path}: ${result.reason}`, 'name another checkpoint of the run');
  }
  throw errorFor(
    isRun ? 'CHECKPOINT_CORRUPT' : 'CONFIG_INVALID',
    `${path} holds no checkpoint that can be used`,
    'name a run directory or one of the directories in its checkpoints/',
  );
}

/** The run directory that a checkpoint lies in. */
export function runOf(checkpoint: string): string {
  return basename(dirname(checkpoint)) === 'checkpoints' ? dirname(dirname(checkpoint)) : dirname(checkpoint);
}

/** A JSON file of a checkpoint. Throws CHECKPOINT_CORRUPT. */
export async function readState<T>(checkpoint: string, name: string): Promise<T> {
  try {
    return JSON.parse(await readFile(join(checkpoint, name), 'utf8')) as T;
  } catch (cause) {
    throw errorFor(
      'CHECKPOINT_CORRUPT',
      `${join(checkpoint, name)} cannot be read`,
      'resume from another checkpoint',
      cause,
    );
  }
}
