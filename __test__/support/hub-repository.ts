/** A folder as the local hub serves it: its files, their digests, and what a hub tells of them. */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join, posix } from 'node:path';

/** A dataset of the hub. */
export interface Repository {
  /** Folder with its files. */
  folder: string;
  /** Further paths, and the file of the folder that each is a copy of. */
  copies?: Record<string, string>;
  /** Only requests with `Authorization: Bearer <token>` see it. */
  token?: string;
  /** Nobody is let in before accepting its conditions. */
  gated?: boolean;
}

export interface Entry {
  path: string;
  location: string;
  size: number;
  sha256: string;
}

export interface Served extends Repository {
  /** By path, sorted. */
  entries: Map<string, Entry>;
  commit: string;
}

/** Reads a folder once; whatever changes in it afterwards is not seen. */
export async function readRepository(repository: Repository): Promise<Served> {
  const found = new Map<string, Entry>();
  for (const path of await walk(repository.folder, '')) {
    const location = join(repository.folder, path);
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(location, { highWaterMark: 1 << 20 })) {
      hash.update(chunk as Buffer);
    }
    found.set(path, { path, location, size: (await stat(location)).size, sha256: hash.digest('hex') });
  }
  for (const [path, original] of Object.entries(repository.copies ?? {})) {
    const entry = found.get(original);
    if (!entry) throw new Error(`${path} is to be a copy of ${original}, which is not there`);
    found.set(path, { ...entry, path });
  }
  const entries = new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1)));
  const commit = createHash('sha1');
  for (const { path, sha256 } of entries.values()) commit.update(`${path} ${sha256}\n`);
  return { ...repository, entries, commit: commit.digest('hex') };
}

async function walk(folder: string, under: string): Promise<string[]> {
  const found: string[] = [];
  for (const entry of await readdir(join(folder, under), { withFileTypes: true })) {
    const path = posix.join(under, entry.name);
    if (entry.isDirectory()) found.push(...(await walk(folder, path)));
    else found.push(path);
  }
  return found;
}

/** What is listed under a folder; null where there is nothing. */
export function listTree({ entries }: Served, under: string, recursive: boolean): object[] | null {
  const prefix = under === '' ? '' : `${under.replace(/\/$/, '')}/`;
  const listed = new Map<string, object>();
  for (const entry of entries.values()) {
    if (!entry.path.startsWith(prefix)) continue;
    const parts = entry.path.slice(prefix.length).split('/');
    const folders = recursive ? parts.length - 1 : Math.min(1, parts.length - 1);
    for (let depth = 1; depth <= folders; depth++) {
      const path = prefix + parts.slice(0, depth).join('/');
      if (!listed.has(path)) listed.set(path, { type: 'directory', oid: oid(path), size: 0, path });
    }
    if (recursive || parts.length === 1) listed.set(entry.path, fileInfo(entry));
  }
  return prefix !== '' && listed.size === 0 ? null : [...listed.values()];
}

/** What is known of some paths, files or folders. */
export function pathsInfo({ entries }: Served, paths: readonly string[]): object[] {
  return paths.flatMap((path) => {
    const entry = entries.get(path);
    if (entry) return [fileInfo(entry)];
    const isFolder = [...entries.keys()].some((other) => other.startsWith(`${path}/`));
    return isFolder ? [{ type: 'directory', oid: oid(path), size: 0, path }] : [];
  });
}

function fileInfo({ path, sha256, size }: Entry): object {
  return { type: 'file', oid: sha256.slice(0, 40), size, path };
}

function oid(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}
