/**
 * A small hub on this machine: serves folders as datasets so that the real `datasets` library streams from them with
 * `HF_ENDPOINT`. Counts what is asked of it, and misbehaves where a test scripts it to.
 */
import { createReadStream } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Transform } from 'node:stream';
import type { Fault, FaultScript, HubRequest } from './hub-faults.js';
import {
  type Entry,
  listTree,
  pathsInfo,
  readRepository,
  type Repository,
  type Served,
} from './hub-repository.js';

/** Entries of a page of a listing, as on the real hub. */
const defaultPage = 1000;
const apiPath = /^\/api\/datasets\/([^/]+\/[^/]+)(?:\/(revision|tree|paths-info)\/([^/]+)\/?(.*))?$/;
const contentPath = /^\/datasets\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/;
const storagePath = /^\/storage\/(\d+)$/;

/** A link into the hub's storage, as long as it works. */
interface Link {
  entry: Entry;
  commit: string;
  uses: number;
}

/** The running server. Repositories are read when it starts. */
export class LocalHub implements AsyncDisposable {
  readonly url: string;
  /** Every request so far. */
  readonly requests: HubRequest[] = [];
  /** Bytes of file contents sent. */
  bytesServed = 0;
  /** Asked for every request; set it at any time. */
  script: FaultScript | null = null;
  /** Entries of a page of a listing. */
  pageSize = defaultPage;
  /** Names of users by their tokens. */
  readonly users = new Map<string, string>();
  readonly #server: Server;
  readonly #repositories: Map<string, Served>;
  readonly #seen = new Map<string, number>();
  readonly #links: Link[] = [];

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
    await listen(server, 0);
    return new LocalHub(server, served);
  }

  /** The commit that a repository is at. */
  commit(name: string): string {
    return this.#repositories.get(name)?.commit ?? '';
  }

  /** From now on connections are refused, and those there are are cut. */
  async down(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }

  /** Listens again, at the same address. */
  async up(): Promise<void> {
    await listen(this.#server, Number(new URL(this.url).port));
  }

  async close(): Promise<void> {
    if (this.#server.listening) await this.down();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const path = decodeURIComponent(url.pathname);
    const api = apiPath.exec(path);
    const content = contentPath.exec(path);
    const fault = this.#note(request, path, content?.[3] ?? null);
    if (fault?.delay) await new Promise((resolve) => setTimeout(resolve, fault.delay));
    if (fault?.reset) {
      request.socket.resetAndDestroy();
      return;
    }
    if (fault?.status) return reply(response, fault.status, null, fault);
    if (path === '/api/whoami-v2') return this.#sendUser(request, response);
    const stored = storagePath.exec(path);
    if (stored) return this.#sendStored(request, response, Number(stored[1]), fault);
    const repository = this.#repositories.get(api?.[1] ?? content?.[1] ?? '');
    if (!repository) return replyError(response, 404, 'RepoNotFound', fault);
    if (!admitted(repository, request, response)) return;
    const revision = api?.[3] ?? content?.[2] ?? 'main';
    if (revision !== 'main' && revision !== repository.commit) {
      return replyError(response, 404, 'RevisionNotFound', fault);
    }
    if (content) return this.#sendFile(request, response, repository, content[3] ?? '', fault);
    if (api?.[2] === 'tree') return this.#sendTree(response, repository, api[4] ?? '', url, fault);
    if (api?.[2] === 'paths-info') {
      return reply(response, 200, pathsInfo(repository, pathsOf(await bodyOf(request))), fault);
    }
    const { commit: sha } = repository;
    reply(response, 200, { id: api?.[1], sha, private: false, gated: false, siblings: [], tags: [] }, fault);
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

  #sendUser(request: IncomingMessage, response: ServerResponse): void {
    const name = this.users.get((request.headers.authorization ?? '').replace(/^Bearer /, ''));
    if (name === undefined) reply(response, 401, { error: 'Invalid username or password.' }, null);
    else reply(response, 200, { type: 'user', name }, null);
  }

  #sendTree(
    response: ServerResponse,
    repository: Served,
    under: string,
    url: URL,
    fault: Fault | null,
  ): void {
    const query = url.searchParams;
    const listed = listTree(repository, under, query.get('recursive')?.toLowerCase() === 'true');
    if (!listed) return replyError(response, 404, 'EntryNotFound', fault);
    const start = Number(query.get('cursor') ?? 0);
    const size = Math.min(this.pageSize, Number(query.get('limit') ?? this.pageSize));
    const next = new URL(url);
    next.searchParams.set('cursor', String(start + size));
    const headers = start + size < listed.length ? { Link: `<${next.href}>; rel="next"` } : {};
    reply(response, 200, listed.slice(start, start + size), fault, headers);
  }

  #sendFile(
    request: IncomingMessage,
    response: ServerResponse,
    { commit, entries }: Served,
    path: string,
    fault: Fault | null,
  ): void {
    const entry = entries.get(path);
    if (!entry) return replyError(response, 404, 'EntryNotFound', fault, { 'X-Repo-Commit': commit });
    if (fault?.redirect === undefined) return this.#send(request, response, entry, commit, fault);
    const link = this.#links.push({ entry, commit, uses: fault.redirect }) - 1;
    reply(response, 302, null, fault, {
      Location: `${this.url}/storage/${link}`,
      ETag: `"${entry.sha256}"`,
      'X-Repo-Commit': commit,
    });
  }

  #sendStored(request: IncomingMessage, response: ServerResponse, number: number, fault: Fault | null): void {
    const link = this.#links[number];
    if (!link || link.uses <= 0) return reply(response, 403, { error: 'Request has expired' }, fault);
    link.uses--;
    this.#send(request, response, link.entry, link.commit, fault);
  }

  #send(
    request: IncomingMessage,
    response: ServerResponse,
    entry: Entry,
    commit: string,
    fault: Fault | null,
  ): void {
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
    const sent = Math.min(length, fault?.truncate ?? length, fault?.stall ?? length);
    this.bytesServed += sent;
    if (sent === 0) {
      if (fault?.stall === undefined) response.destroy();
      else response.flushHeaders();
      return;
    }
    // Large pieces: each costs the same, however many bytes it has.
    const source = createReadStream(entry.location, {
      start,
      end: start + sent - 1,
      highWaterMark: 512 << 10,
    });
    const body = fault?.corrupt ? source.pipe(flipping(start, fault.corrupt)) : source;
    const isWhole = sent === length;
    body.on('end', () => {
      if (!isWhole && fault?.stall === undefined) response.destroy();
    });
    body.on('error', () => response.destroy());
    response.on('close', () => source.destroy());
    body.pipe(response, { end: isWhole });
  }
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** Flips the bits of the bytes at some offsets of a file that is read from `start`. */
function flipping(start: number, offsets: readonly number[]): Transform {
  let at = start;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      for (const offset of offsets) {
        const index = offset - at;
        if (index >= 0 && index < chunk.length) chunk[index] = (chunk[index] ?? 0) ^ 0xff;
      }
      at += chunk.length;
      done(null, chunk);
    },
  });
}

function admitted(repository: Served, request: IncomingMessage, response: ServerResponse): boolean {
  const authorization = request.headers.authorization ?? null;
  if (repository.gated) {
    replyError(response, authorization ? 403 : 401, 'GatedRepo', null);
    return false;
  }
  if (!repository.token || authorization === `Bearer ${repository.token}`) return true;
  // The real hub does not tell who may not know whether a private repository exists.
  const headers: Record<string, string> = authorization
    ? { 'X-Error-Message': 'Invalid credentials in Authorization header' }
    : { 'X-Error-Code': 'RepoNotFound' };
  reply(response, 401, { error: 'Invalid username or password.' }, null, headers);
  return false;
}

function pathsOf(body: string): string[] {
  const asked = body.startsWith('{')
    ? (JSON.parse(body) as { paths: string | string[] }).paths
    : new URLSearchParams(body).getAll('paths');
  return [asked].flat();
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function replyError(
  response: ServerResponse,
  status: number,
  code: string,
  fault: Fault | null,
  headers: Record<string, string> = {},
): void {
  reply(response, status, { error: code }, fault, { 'X-Error-Code': code, ...headers });
}

function reply(
  response: ServerResponse,
  status: number,
  body: unknown,
  fault: Fault | null,
  headers: Record<string, string> = {},
): void {
  const text = Buffer.from(body === null ? '' : JSON.stringify(body));
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': text.length,
    ...headers,
    ...fault?.headers,
  });
  const sent = Math.min(text.length, fault?.truncate ?? text.length, fault?.stall ?? text.length);
  if (sent === text.length) {
    response.end(text);
    return;
  }
  response.write(text.subarray(0, sent), () => {
    if (fault?.stall === undefined) response.destroy();
  });
}
