/** Tokenizers that everybody knows, where their files are on this machine already: nothing is downloaded. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../native/index.js';
import { Tokenizer } from './index.js';
import type { Pattern } from './index.js';

interface Known {
  name: string;
  pattern: Pattern;
  /** Repositories of the Hub that have it as a `tokenizer.json`. */
  repositories: readonly string[];
  /** tiktoken's rank file. */
  ranks: string;
}

const PUBLISHED = 'https://openaipublic.blob.core.windows.net/encodings';

const known: readonly Known[] = [
  {
    name: 'gpt2',
    pattern: 'gpt2',
    repositories: ['openai-community/gpt2', 'gpt2'],
    ranks: `${PUBLISHED}/r50k_base.tiktoken`,
  },
  {
    name: 'cl100k',
    pattern: 'cl100k',
    repositories: ['Xenova/gpt-4'],
    ranks: `${PUBLISHED}/cl100k_base.tiktoken`,
  },
  {
    name: 'o200k',
    pattern: 'o200k',
    repositories: ['Xenova/gpt-4o'],
    ranks: `${PUBLISHED}/o200k_base.tiktoken`,
  },
];

/** What the caches of the Hugging Face Hub and of tiktoken hold. */
interface Found {
  tokenizers: Record<string, Tokenizer>;
  /** Names of those that are in neither, or do not load. */
  missing: string[];
  /** Why some did not load, in words. */
  problems: string[];
}

/** The well-known tokenizers on this machine. */
export async function knownTokenizers(): Promise<Found> {
  const found: Found = { tokenizers: {}, missing: [], problems: [] };
  for (const { name, pattern, repositories, ranks } of known) {
    try {
      const tokenizer = await load(pattern, repositories, ranks);
      if (tokenizer === null) found.missing.push(name);
      else found.tokenizers[name] = tokenizer;
    } catch (cause) {
      found.missing.push(name);
      found.problems.push(
        `${name} is not compared: ${cause instanceof Error ? cause.message : String(cause)}`,
      );
    }
  }
  return found;
}

async function load(
  pattern: Pattern,
  repositories: readonly string[],
  ranks: string,
): Promise<Tokenizer | null> {
  for (const repository of repositories) {
    const file = inHubCache(repository);
    if (file !== null) return Tokenizer.fromFile(file);
  }
  const file = inTiktokenCache(ranks);
  return file === null ? null : new Tokenizer(await native().tokenizerFromRankFile(file, pattern));
}

/** `tokenizer.json` of a repository as huggingface_hub keeps it: of the branch main, or of any commit. */
function inHubCache(repository: string): string | null {
  const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env;
  const home = HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface');
  const folder = join(HF_HUB_CACHE ?? join(home, 'hub'), `models--${repository.replace('/', '--')}`);
  const snapshots = join(folder, 'snapshots');
  const main = join(folder, 'refs', 'main');
  const commits = existsSync(main) ? [readFileSync(main, 'utf8').trim()] : [];
  if (existsSync(snapshots)) commits.push(...readdirSync(snapshots));
  const files = commits.map((commit) => join(snapshots, commit, 'tokenizer.json'));
  return files.find((file) => existsSync(file)) ?? null;
}

/** tiktoken names its files by the SHA-1 of where they came from. */
function inTiktokenCache(url: string): string | null {
  const { TIKTOKEN_CACHE_DIR, DATA_GYM_CACHE_DIR } = process.env;
  const folder = TIKTOKEN_CACHE_DIR ?? DATA_GYM_CACHE_DIR ?? join(tmpdir(), 'data-gym-cache');
  const file = join(folder, createHash('sha1').update(url).digest('hex'));
  return folder !== '' && existsSync(file) ? file : null;
}
