import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorFor } from '../errors.js';
import { exists, onDisk, replaceFile, sha256 } from '../run/index.js';
import type { OpenSource } from '../run/index.js';
import type { Origin } from './train-tokenizer.js';

/** What decides the counts of words: another of these is another stream. */
interface Stream {
  dataset: string | null;
  config_name: string | null;
  split: string;
  text_column: string;
  text_template: string | null;
  revision: string | null;
  pattern: string;
  counts: string | null;
  /** SHA-256 of the paths. */
  files: string;
}

/** What a training that was stopped leaves beside its output: counts, where they end, and the stream they are of. */
export class PartialTraining {
  readonly directory: string;

  constructor(output: string) {
    this.directory = `${output.replace(/\/+$/, '')}.partial`;
  }

  /** Where the counts of the whole are written before they move into the output. */
  get countsFile(): string {
    return join(this.directory, 'counts.bin');
  }

  /** The revision that an earlier attempt pinned. */
  async revision(): Promise<string | null> {
    return (await this.#stream())?.revision ?? null;
  }

  /** Makes the directory that of this stream. Throws RESUME_MISMATCH when it is another's. */
  async claim(origin: Origin, sources: readonly OpenSource[]): Promise<void> {
    const ready = sources[0]?.ready;
    const stream: Stream = {
      dataset: origin.dataset,
      config_name: origin.config_name,
      split: origin.split,
      text_column: origin.text_column,
      text_template: origin.text_template,
      revision: ready?.revision ?? null,
      pattern: origin.pattern,
      counts: origin.counts,
      files: sha256((ready?.files ?? []).join('\n')),
    };
    const before = await this.#stream();
    for (const key of before === null ? [] : (Object.keys(stream) as (keyof Stream)[])) {
      if (before?.[key] === stream[key]) continue;
      throw errorFor(
        'RESUME_MISMATCH',
        `${this.directory} holds counts of another stream: ${key} was ${JSON.stringify(before?.[key])} and is ${JSON.stringify(stream[key])} now`,
        'repeat the earlier command to go on, or delete that directory to begin again',
      );
    }
    await onDisk(this.directory, async () => mkdir(this.directory, { recursive: true }));
    if (before === null) await replaceFile(this.#path, `${JSON.stringify(stream, null, 2)}\n`);
  }

  async remove(): Promise<void> {
    await onDisk(this.directory, () => rm(this.directory, { recursive: true, force: true }));
  }

  /** Removes the directory when there is nothing in it to go on from. */
  async removeUncounted(): Promise<void> {
    if (!(await exists(join(this.directory, 'progress.json')))) await this.remove();
  }

  get #path(): string {
    return join(this.directory, 'stream.json');
  }

  async #stream(): Promise<Stream | null> {
    const text = await readFile(this.#path, 'utf8').catch(() => null);
    return text === null ? null : (JSON.parse(text) as Stream);
  }
}
