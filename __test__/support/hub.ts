/**
 * A small hub on this machine: serves folders as datasets so that the real `datasets` library streams from them with
 * `HF_ENDPOINT`. Counts what is asked of it, and misbehaves where a test scripts it to.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readdir, readFile, stat } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join, posix } from 'node:path';

/** One request, as it came in. */
export interface HubRequest {
  method: string;
  /** Path without the query. */
  path: string;
  /** Path of the file in its repository, for requests of file contents. */
  file: string | null;
  range: string | null;
  authorization: string | null;
  /** How often this method and path have been asked for before. */
  before: number;
}

/** What to do instead of, or before, the right answer. */
export interface Fault {
  /** Milliseconds to wait first. */
  delay?: number;
  /** Answer with this status and no data. */
  status?: number;
  headers?: Record<string, string>;
  /** Cut the connection after this many bytes of the body. */
  truncate?: number;
  /** Answer a ranged request with the whole file. */
  ignoreRange?: boolean;
}

/** A dataset of the hub. */
export interface Repository {
  /** Folder with its files. */
  folder: string;
  /** Only requests with `Authorization: Bearer <token>` see it. */
  token?: string;
  /** Nobody is let in before accepting its conditions. */
  gated?: boolean;
}

interface Entry {
  path: string;
  location: string;
  size: number;
  sha256: string;
}

interface Served extends Repository {
  entries: Map<string, Entry>;
  commit: string;
}

/** Decides on a fault for a request; null or undefined for none. */
export type FaultScript = (request: HubRequest) => Fault | null | undefined;

/** The running server. Repositories are read when it starts. */
export class LocalHub implements AsyncDisposable {
  readonly url: string;
  /** Every request so far. */
  readonly requests: HubRequest[] = [];
  /** Bytes of file contents sent. */
  bytesServed = 0;
  /** Asked for every request; set it at any time. */
  script: FaultScript | null = null;
  readonly #server: Server;
  readonly #repositories: Map<string, Served>;
  readonly #seen = new Map<string, number>();

  private constructor(server: Server, repositories: Map<string, Served>) {
    this.#server = server;
    this.#repositories = repositories;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response).catch((error: unknown) => {
        response.destroy(error instanceof Error ? error : new Error(String(error)));
      });
    });
  }

  /** Serves folders by their names on the hub, for instance `{ 'HuggingFaceFW/fineweb': '/data/web-text' }`. */
  static async start(repositories: Record<string, string | Repository>): Promise<LocalHub> {
    const served = new Map<string, Served>();
    for (const [name, given] of Object.entries(repositories)) {
      served.set(name, await readRepository(typeof given === 'string' ? { folder: given } : given));
    }
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new LocalHub(server, served);
  }

  /** The commit that a repository is at. */
  commit(name: string): string {
    return this.#repositories.get(name)?.commit ?? '';
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const path = decodeURIComponent(url.pathname);
    const api = /^\/api\/datasets\/([^/]+\/[^/]+)(?:\/(revision|tree|paths-info)\/([^/]+)\/?(.*))?$/.exec(
      path,
    );
    const content = /^\/datasets\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const fault = this.#note(request, path, content?.[3] ?? null);
    if (fault?.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
    if (fault?.status) return reply(response, fault.status, null, fault.headers);
    const repository = this.#repositories.get(api?.[1] ?? content?.[1] ?? '');
    if (!repository)
      return reply(response, 404, { error: 'Repository not found' }, { 'X-Error-Code': 'RepoNotFound' });
    if (!admitted(repository, request, response)) return;
    const revision = api?.[3] ?? content?.[2] ?? 'main';
    if (revision !== 'main' && revision !== repository.commit) {
      return reply(response, 404, { error: 'Revision not found' }, { 'X-Error-Code': 'RevisionNotFound' });
    }
    if (content) return this.#send(request, response, repository, content[3] ?? '', fault);
    if (api?.[2] === 'tree') return sendTree(response, repository, api[4] ?? '', url.searchParams);
    if (api?.[2] === 'paths-info') return sendPaths(response, repository, await bodyOf(request));
    reply(response, 200, {
      id: api?.[1],
      sha: repository.commit,
      private: false,
      gated: false,
      siblings: [],
      tags: [],
    });
  }

  #note(request: IncomingMessage, path: string, file: string | null): Fault | null {
    const method = request.method ?? 'GET';
    const key = `${method} ${path}`;
    const before = this.#seen.get(key) ?? 0;
    this.#seen.set(key, before + 1);
    const { authorization = null, range = null } = request.headers;
    const noted: HubRequest = { method, path, file, range, authorization, before };
    this.requests.push(noted);
    return this.script?.(noted) ?? null;
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    { commit, entries }: Served,
    path: string,
    fault: Fault | null,
  ): void {
    const entry = entries.get(path);
    if (!entry) {
      reply(
        response,
        404,
        { error: 'Entry not found' },
        { 'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': commit },
      );
      return;
    }
    const range = fault?.ignoreRange ? null : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
    const start = range ? Number(range[1]) : 0;
    const end = Math.min(range?.[2] ? Number(range[2]) : entry.size - 1, entry.size - 1);
    const length = Math.max(0, end - start + 1);
    response.writeHead(range ? 206 : 200, {
      ETag: `"${entry.sha256}"`,
      'X-Repo-Commit': commit,
      'Accept-Ranges': 'bytes',
      'Content-Length': length,
      'Content-Type': 'application/octet-stream',
      ...(range ? { 'Content-Range': `bytes ${start}-${end}/${entry.size}` } : {}),
      ...fault?.headers,
    });
    if (request.method === 'HEAD' || length === 0) {
      response.end();
      return;
    }
    const sent = Math.min(length, fault?.truncate ?? length);
    this.bytesServed += sent;
    const cut = sent < length;
    if (sent === 0) {
      response.destroy();
      return;
    }
    const body = createReadStream(entry.location, { start, end: start + sent - 1 });
    body.on('end', () => (cut ? response.destroy() : undefined));
    body.on('error', () => response.destroy());
    response.on('close', () => body.destroy());
    body.pipe(response, { end: !cut });
  }
}

async function readRepository(repository: Repository): Promise<Served> {
  const entries = new Map<string, Entry>();
  for (const path of await walk(repository.folder, '')) {
    const location = join(repository.folder, path);
    const sha256 = createHash('sha256')
      .update(await readFile(location))
      .digest('hex');
    entries.set(path, { path, location, size: (await stat(location)).size, sha256 });
  }
  const commit = createHash('sha1');
  for (const { path, sha256 } of entries.values()) commit.update(`${path} ${sha256}\n`);
  return { ...repository, entries, commit: commit.digest('hex') };
}

async function walk(folder: string, under: string): Promise<string[]> {
  const found: string[] = [];
  const entries = await readdir(join(folder, under), { withFileTypes: true });
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = posix.join(under, entry.name);
    if (entry.isDirectory()) found.push(...(await walk(folder, path)));
    else found.push(path);
  }
  return found;
}

function admitted(repository: Served, request: IncomingMessage, response: ServerResponse): boolean {
  const authorization = request.headers.authorization ?? null;
  if (repository.gated) {
    const status = authorization ? 403 : 401;
    reply(
      response,
      status,
      { error: 'Access to this dataset is restricted' },
      { 'X-Error-Code': 'GatedRepo' },
    );
    return false;
  }
  if (!repository.token || authorization === `Bearer ${repository.token}`) return true;
  // The real hub does not tell who may not know whether a private repository exists.
  const headers = authorization
    ? { 'X-Error-Message': 'Invalid credentials in Authorization header' }
    : { 'X-Error-Code': 'RepoNotFound' };
  reply(response, 401, { error: 'Invalid username or password.' }, headers);
  return false;
}

function sendTree(
  response: ServerResponse,
  { entries }: Served,
  under: string,
  query: URLSearchParams,
): void {
  const recursive = query.get('recursive')?.toLowerCase() === 'true';
  const prefix = under === '' ? '' : `${under.replace(/\/$/, '')}/`;
  const listed = new Map<string, object>();
  for (const entry of entries.values()) {
    if (!entry.path.startsWith(prefix)) continue;
    const parts = entry.path.slice(prefix.length).split('/');
    const folders = recursive ? parts.length - 1 : Math.min(1, parts.length - 1);
    for (let depth = 1; depth <= folders; depth++) {
      const path = prefix + parts.slice(0, depth).join('/');
      listed.set(path, { type: 'directory', oid: oid(path), size: 0, path });
    }
    if (recursive || parts.length === 1) listed.set(entry.path, fileInfo(entry));
  }
  if (prefix !== '' && listed.size === 0) {
    reply(response, 404, { error: 'Entry not found' }, { 'X-Error-Code': 'EntryNotFound' });
    return;
  }
  reply(response, 200, [...listed.values()]);
}

function sendPaths(response: ServerResponse, { entries }: Served, body: string): void {
  const asked = body.startsWith('{')
    ? (JSON.parse(body) as { paths: string | string[] }).paths
    : new URLSearchParams(body).getAll('paths');
  const infos = [asked].flat().flatMap((path) => {
    const entry = entries.get(path);
    if (entry) return [fileInfo(entry)];
    const isFolder = [...entries.keys()].some((other) => other.startsWith(`${path}/`));
    return isFolder ? [{ type: 'directory', oid: oid(path), size: 0, path }] : [];
  });
  reply(response, 200, infos);
}

function fileInfo({ path, sha256, size }: Entry): object {
  return { type: 'file', oid: oid(sha256), size, path };
}

function oid(text: string): string {
  return createHash('sha1').update(text).digest('hex');
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function reply(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  const text = body === null ? '' : JSON.stringify(body);
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}
