import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { feedSources, linksOf } from '../corpus/index.js';
import { errorFor } from '../errors.js';
import type { HeldOutEnd, NativeBinding, NativeTokenizer } from '../native/binding.js';
import { disk, exists, namesIn, onDisk } from './disk.js';
import type { SetupEvent } from './events.js';
import type { OpenSource } from './source.js';

/** How a tokenizer is trained from a stream. */
export interface TokenizerTraining {
  vocabSize: number;
  pattern: string;
  specialTokens: readonly string[];
  /** Documents to count; null: all of one epoch. */
  maxSamples: number | null;
  batchSize: number;
  threads: number;
  /** Where the held-out part of each source ends; empty: nothing is held out. */
  heldOut: readonly HeldOutEnd[];
  signal?: AbortSignal | undefined;
  /** Hears of progress about four times a second. */
  onProgress?: (event: SetupEvent & { type: 'tokenizer' }) => void;
}

const REPORT_MS = 250;

/**
 * Trains a tokenizer from sources, each in file order. Throws VOCAB_TOO_LARGE, ABORTED, CONFIG_INVALID for a stream that
 * would never end, and the sources' errors.
 */
export async function trainTokenizer(
  binding: NativeBinding,
  sources: readonly OpenSource[],
  options: TokenizerTraining,
): Promise<NativeTokenizer> {
  refuseEndless(sources, options.maxSamples);
  const trainer = binding.createTokenizerTrainer(
    JSON.stringify({
      vocab_size: options.vocabSize,
      pattern: options.pattern,
      special_tokens: options.specialTokens,
    }),
  );
  const feed = binding.createFeed(
    {
      sources: feedSources(sources, options.heldOut),
      order: 'file',
      seed: 0,
      shuffle_buffer_size: 1,
      batch_size: options.batchSize,
      epochs: 1,
      max_samples: options.maxSamples,
      threads: options.threads,
    },
    linksOf(sources),
  );
  const began = performance.now();
  const report = () => {
    const { documents, bytes, merges } = JSON.parse(trainer.progress()) as {
      documents?: number;
      bytes?: number;
      merges?: number;
    };
    options.onProgress?.({
      type: 'tokenizer',
      documents: documents ?? 0,
      bytes: bytes ?? 0,
      merges: merges ?? 0,
      target: Math.max(0, options.vocabSize - 256 - options.specialTokens.length),
      limit: options.maxSamples,
      seconds: (performance.now() - began) / 1000,
    });
  };
  const timer = setInterval(report, REPORT_MS);
  const abort = () => {
    trainer.abort();
    void feed.close();
  };
  options.signal?.addEventListener('abort', abort, { once: true });
  try {
    options.signal?.throwIfAborted();
    await trainer.consume(feed);
    options.signal?.throwIfAborted();
    const tokenizer = await trainer.finish();
    options.signal?.throwIfAborted();
    report();
    return tokenizer;
  } catch (cause) {
    if (options.signal?.aborted !== true) throw cause;
    const hint = 'run the same command to begin again';
    throw errorFor('ABORTED', 'stopped while the tokenizer was trained', hint, cause);
  } finally {
    clearInterval(timer);
    options.signal?.removeEventListener('abort', abort);
    await feed.close();
  }
}

/** A source that repeats goes on until another stops the stream, or a limit does. */
function refuseEndless(sources: readonly OpenSource[], maxSamples: number | null): void {
  const policies = new Set(sources.map(({ on_exhausted }) => on_exhausted));
  if (maxSamples !== null || policies.has('stop') || !policies.has('repeat')) return;
  throw errorFor(
    'CONFIG_INVALID',
    'a tokenizer would be trained forever: sources repeat, none stops the stream, and there is no limit',
    'set tokenizer.train.max_samples (maxSamples), or on_exhausted: stop for a source',
  );
}

/**
 * Saves a tokenizer so that `directory` holds all of it or none. Files of others that lie there stay. `extra` are
 * more JSON files to put beside it.
 */
export async function saveTokenizer(
  tokenizer: NativeTokenizer,
  directory: string,
  extra: Record<string, unknown> = {},
): Promise<void> {
  await onDisk(directory, async () => {
    const temporary = `${directory}.tmp`;
    await mkdir(dirname(directory), { recursive: true });
    await rm(temporary, { recursive: true, force: true });
    await mkdir(temporary);
    try {
      await tokenizer.save(temporary);
      for (const [name, value] of Object.entries(extra)) {
        await disk.writeFile(join(temporary, name), `${JSON.stringify(value, null, 2)}\n`);
      }
      const names = await readdir(temporary);
      for (const name of names) await disk.sync(join(temporary, name));
      await disk.sync(temporary);
      if ((await namesIn(directory)).length === 0) {
        await rename(temporary, directory);
      } else {
        // tokenizer.json last: a tokenizer is there when it is.
        for (const name of names.sort(
          (a, b) => Number(a === 'tokenizer.json') - Number(b === 'tokenizer.json'),
        )) {
          await rename(join(temporary, name), join(directory, name));
        }
      }
      await disk.sync(dirname(directory));
    } finally {
      await rm(temporary, { recursive: true, force: true });
    }
  });
}

/** Whether a directory holds a tokenizer. */
export async function holdsTokenizer(directory: string): Promise<boolean> {
  return exists(join(directory, 'tokenizer.json'));
}

/** A tokenizer of single bytes: enough to find where held-out documents end before there is another. */
export async function byteTokenizer(binding: NativeBinding): Promise<NativeTokenizer> {
  return binding
    .createTokenizerTrainer(
      JSON.stringify({ vocab_size: 257, pattern: 'gpt2', special_tokens: ['<|endoftext|>'] }),
    )
    .finish();
}
