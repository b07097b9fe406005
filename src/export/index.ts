/** Models as directories that transformers loads. */
import { mkdir, readFile, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { errorFor } from '../errors.js';
import { native } from '../native/index.js';
import { disk, findModel, onDisk, runOf } from '../run/index.js';
import { modelCard } from './card.js';
import type { Exported } from './card.js';

/** How the exported values are stored. */
export type ExportType = 'f32' | 'bf16' | 'f16';

/** What `exportModel` wrote. */
export interface ExportResult {
  /** Where it was exported to. */
  output: string;
  /** The directory that the weights came from. */
  model: string;
  dtype: ExportType;
  parameters: number;
  vocab_size: number;
  /** Of the weights. */
  bytes: number;
  /** Names in the directory. */
  files: string[];
}

/**
 * Exports the model of a run, a checkpoint or a model directory into `to`, which is made, all of it or nothing.
 * Throws CONFIG_INVALID, CHECKPOINT_CORRUPT, TOKENIZER_INVALID, TOKENIZER_MISMATCH, DISK_FULL, NOT_WRITABLE.
 */
export async function exportModel(
  from: string,
  to: string,
  options: { dtype?: ExportType; onSkipped?: (path: string, reason: string) => void } = {},
): Promise<ExportResult> {
  const { dtype = 'f32', onSkipped = () => undefined } = options;
  const source = await findModel(from, onSkipped);
  const output = resolve(to);
  if ((await namesOf(output)).length > 0) {
    throw errorFor('CONFIG_INVALID', `${to} is not empty`, 'name a directory that is new or empty with --to');
  }
  const temporary = join(dirname(output), `.${basename(output)}.${process.pid}.tmp`);
  return onDisk(output, async () => {
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary, { recursive: true });
    try {
      const exported = JSON.parse(
        await native().exportModel(source.directory, temporary, JSON.stringify({ dtype })),
      ) as Exported;
      const own = source.checkpoint === null ? join(source.directory, 'README.md') : null;
      const name =
        source.checkpoint === null
          ? basename(resolve(source.directory))
          : basename(resolve(runOf(source.directory)));
      const kept = own === null ? null : await readFile(own, 'utf8').catch(() => null);
      const card =
        kept?.replace(/ and exported as (f32|bf16|f16)\./, ` and exported as ${dtype}.`) ??
        (await modelCard(name, source, exported, dtype));
      await disk.writeFile(join(temporary, 'README.md'), card);
      const files = await namesOf(temporary);
      for (const file of files) await disk.sync(join(temporary, file));
      await disk.sync(temporary);
      await rmdir(output).catch(() => undefined);
      await rename(temporary, output);
      await disk.sync(dirname(output));
      return {
        output,
        model: source.directory,
        dtype,
        parameters: exported.parameters,
        vocab_size: exported.config.vocab_size,
        bytes: exported.bytes,
        files,
      };
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  });
}

/** Names in a directory; none where there is no directory. Throws NOT_WRITABLE for a file. */
async function namesOf(path: string): Promise<string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return [];
    throw errorFor(
      'NOT_WRITABLE',
      `${path} is no directory`,
      'name a directory that is new or empty with --to',
      cause,
    );
  }
}
