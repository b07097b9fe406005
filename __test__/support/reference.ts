/** The slow reference of the stream, and the package it needs. */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { python, repository } from './python.js';

/** The peer that our ids are held to. */
const peer = 'tokenizers==0.23.3';

export interface ReferenceRequest {
  root: string;
  seed: number;
  epoch: number;
  window: number;
  held_out: number;
  /** Path of a tokenizer.json. */
  tokenizer: string;
  /** Targets to hash; null: all. */
  tokens: number | null;
}

export interface Reference {
  /** SHA-1 of each document's ids. */
  digests: string[];
  hash: string;
}

/** Parquet files under a folder, as paths relative to it, sorted. */
export async function parquetFiles(root: string): Promise<string[]> {
  const entries = await readdir(root, { recursive: true });
  return entries.filter((name) => name.endsWith('.parquet')).sort();
}

/** Runs the slow reference over the Parquet files `files` (default: all) of a folder. */
export async function slowReference(request: ReferenceRequest, files?: string[]): Promise<Reference> {
  const packages = await peerPackages();
  const input = { ...request, packages, files: files ?? (await parquetFiles(request.root)) };
  return new Promise((resolve, reject) => {
    const child = spawn(python, [join(repository, '__test__/support/slow_reference.py')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
    });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0
        ? resolve(JSON.parse(output) as Reference)
        : reject(new Error(`the reference exits ${code}`)),
    );
    child.stdin.end(JSON.stringify(input));
  });
}

/** A folder with the peer's Python package, installed once a clone. */
export async function peerPackages(): Promise<string> {
  const cache = join(repository, 'node_modules', '.cache', 'candlewick');
  const folder = join(cache, peer);
  if (existsSync(folder)) return folder;
  const temporary = `${folder}.${process.pid}`;
  await mkdir(cache, { recursive: true });
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps'];
  await promisify(execFile)(python, [...pip, '--target', temporary, peer]);
  // Another test file may have been faster.
  await rename(temporary, folder).catch(() => rm(temporary, { recursive: true, force: true }));
  return folder;
}
