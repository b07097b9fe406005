/** What bench/tokenizer.ts encodes: texts in flat files, a vocabulary, and the packages of the peers. Made once. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { hasSharedData, python, sharedData } from '../../__test__/support/python.js';
import { type Pattern, Tokenizer } from '../../dist/index.js';

const here = dirname(fileURLToPath(import.meta.url));
const cache = join(tmpdir(), 'candlewick-bench-tokenizer');
const run = promisify(execFile);

/** Texts of a data set beside the repository. */
export type DataSet = 'web-text' | 'multilingual-code';

/** The flat file of a data set. */
export async function flatFile(set: DataSet): Promise<string> {
  if (!hasSharedData) throw new Error(`${sharedData} is not there: nothing to measure on`);
  await mkdir(cache, { recursive: true });
  const path = join(cache, `${set}.documents`);
  if (!existsSync(path)) {
    await run(python, [join(here, 'documents.py'), path, join(sharedData, set)]);
  }
  return path;
}

/** Documents of a flat file. */
export async function* documentsOf(path: string): AsyncGenerator<Uint8Array> {
  const file = await readFile(path);
  for (let at = 0; at < file.length; ) {
    const end = at + 4 + file.readUInt32LE(at);
    yield file.subarray(at + 4, end);
    at = end;
  }
}

/** A directory with a tokenizer that was trained on both data sets. */
export async function trainedTokenizer(pattern: Pattern, vocabSize: number): Promise<string> {
  const directory = join(cache, `${pattern}-${vocabSize}`);
  if (existsSync(directory)) return directory;
  const files = [await flatFile('web-text'), await flatFile('multilingual-code')];
  async function* texts() {
    for (const file of files) yield* documentsOf(file);
  }
  const tokenizer = await Tokenizer.train(texts(), { vocabSize, pattern });
  const part = `${directory}.${process.pid}`;
  await tokenizer.save(part);
  await rename(part, directory);
  return directory;
}

/** A flat file with one text. */
export async function textFile(name: string, bytes: Uint8Array): Promise<string> {
  await mkdir(cache, { recursive: true });
  const path = join(cache, `${name}.documents`);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  await writeFile(path, Buffer.concat([length, bytes]));
  return path;
}

/** A peer's packages, installed by pip into a folder of their own. Throws when pip cannot. */
export async function packages(spec: string, options: readonly string[] = []): Promise<string> {
  const folder = join(cache, 'packages', spec.replaceAll(/[^\w.]+/g, '-'));
  if (existsSync(folder)) return folder;
  const part = `${folder}.${process.pid}`;
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...options];
  try {
    await run(python, [...pip, '--target', part, spec]);
    await rename(part, folder);
  } finally {
    await rm(part, { recursive: true, force: true });
  }
  return folder;
}
