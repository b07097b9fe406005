import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { errorFor } from '../errors.js';
import type { Axis, Window } from './downsample.js';
import { FollowedRuns } from './runs.js';
import type { FollowedRun } from './runs.js';

/** The files of the page. Nothing else is ever read for a path that a browser names. */
const files: Readonly<Record<string, [name: string, type: string]>> = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/style.css': ['style.css', 'text/css; charset=utf-8'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
  '/main.js': ['main.js', 'text/javascript; charset=utf-8'],
  '/chart.js': ['chart.js', 'text/javascript; charset=utf-8'],
  '/curves.js': ['curves.js', 'text/javascript; charset=utf-8'],
  '/metrics.js': ['metrics.js', 'text/javascript; charset=utf-8'],
  '/numbers.js': ['numbers.js', 'text/javascript; charset=utf-8'],
};

const headers = {
  'Content-Security-Policy':
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

/** How often files are looked at. File systems of rented machines often tell nobody of changes. */
const POLL_MS = 500;
/** A comment now and then keeps proxies from closing a quiet stream of events. */
const PING_MS = 15_000;
/** Ports that are tried after the first. */
const MORE_PORTS = 20;

export interface DashOptions {
  /** Port to listen on; null: 6007, or the next that is free. 0: any. */
  port?: number | null;
  /** Milliseconds between looks at the files; default: 500. */
  pollMs?: number;
}

/** The server of the page, on 127.0.0.1. */
export class Dash {
  readonly url: string;
  readonly #server: Server;
  readonly #runs: FollowedRuns;
  readonly #listeners = new Set<ServerResponse>();
  readonly #timer: NodeJS.Timeout;
  readonly #ping: NodeJS.Timeout;
  #polling = false;

  private constructor(server: Server, runs: FollowedRuns, pollMs: number) {
    this.#server = server;
    this.#runs = runs;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    server.on('request', (request, response) => void this.#serve(request, response));
    this.#timer = setInterval(() => void this.#poll(), pollMs);
    this.#ping = setInterval(() => {
      for (const listener of this.#listeners) listener.write(': still here\n\n');
    }, PING_MS);
  }

  /** Reads the runs in `roots` and serves them. Throws CONFIG_INVALID without a run, USAGE for a port that is taken. */
  static async open(
    roots: readonly string[],
    { port = null, pollMs = POLL_MS }: DashOptions = {},
  ): Promise<Dash> {
    const runs = new FollowedRuns(roots);
    await runs.open();
    const server = createServer();
    const ports = port === null ? Array.from({ length: MORE_PORTS + 1 }, (_, i) => DEFAULT_PORT + i) : [port];
    for (const candidate of ports) {
      if (await listen(server, candidate)) return new Dash(server, runs, pollMs);
    }
    throw errorFor(
      'USAGE',
      port === null
        ? `ports ${DEFAULT_PORT} to ${DEFAULT_PORT + MORE_PORTS} are all in use`
        : `port ${port} of 127.0.0.1 is in use`,
      'name another with --port, or leave it out to take the next that is free',
    );
  }

  /** How many runs there are. */
  get runs(): number {
    return this.#runs.summaries().length;
  }

  /** Ends every connection and the server. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    clearInterval(this.#ping);
    for (const listener of this.#listeners) listener.end();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #poll(): Promise<void> {
    if (this.#polling) return;
    this.#polling = true;
    try {
      const changed = await this.#runs.poll();
      if (changed.length > 0) this.#tell(changed);
    } catch {
      // A file that is being replaced; the next look finds it.
    } finally {
      this.#polling = false;
    }
  }

  #tell(changed: readonly FollowedRun[]): void {
    const ids = new Set(changed.map(({ id }) => id));
    const data = JSON.stringify(this.#runs.summaries().filter(({ id }) => ids.has(id)));
    for (const listener of this.#listeners) listener.write(`event: runs\ndata: ${data}\n\n`);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      await this.#answer(request, response);
    } catch (cause) {
      const { status, message } =
        cause instanceof Refusal
          ? cause
          : { status: 500, message: cause instanceof Error ? cause.message : String(cause) };
      if (!response.headersSent) response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' });
      response.end(`${message}\n`);
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    refuseStrangers(request);
    // Only the path counts; a host in it is not looked at.
    const target = request.url ?? '/';
    if (!URL.canParse(target, this.url)) throw new Refusal(400, 'that is no path');
    const { pathname, searchParams } = new URL(target, this.url);
    const file = Object.hasOwn(files, pathname) ? files[pathname] : undefined;
    if (file !== undefined) {
      const [name, type] = file;
      return send(response, type, readFileSync(new URL(`./page/${name}`, import.meta.url)));
    }
    switch (pathname) {
      case '/api/runs':
        return send(response, 'application/json', JSON.stringify(this.#runs.summaries()));
      case '/api/curves':
        return send(
          response,
          'application/octet-stream',
          this.#run(searchParams).curves(windowOf(searchParams)),
        );
      case '/api/samples':
        return send(response, 'text/plain; charset=utf-8', await this.#run(searchParams).samples());
      case '/api/events':
        return this.#listen(response);
      default:
        throw new Refusal(404, 'there is nothing here');
    }
  }

  #listen(response: ServerResponse): void {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(`retry: 1000\nevent: runs\ndata: ${JSON.stringify(this.#runs.summaries())}\n\n`);
    this.#listeners.add(response);
    response.on('close', () => this.#listeners.delete(response));
  }

  #run(query: URLSearchParams): FollowedRun {
    const run = this.#runs.get(Number(query.get('run') ?? Number.NaN));
    if (run === undefined) throw new Refusal(404, 'there is no such run');
    return run;
  }
}

/** Beside TensorBoard's 6006. */
const DEFAULT_PORT = 6007;

/** An answer that is an error. */
class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/**
 * Whoever is not a page of this machine gets nothing. A name that somebody else's DNS points to 127.0.0.1 arrives with
 * that name as its host; a page of another site says so in `Sec-Fetch-Site`.
 */
function refuseStrangers({ method, headers: sent }: IncomingMessage): void {
  if (method !== 'GET' && method !== 'HEAD') throw new Refusal(405, 'only GET');
  const host = (sent.host ?? '').replace(/:\d+$/, '');
  if (!['127.0.0.1', 'localhost', '[::1]'].includes(host)) {
    throw new Refusal(
      403,
      'this page answers to localhost only; from another machine: ssh -L 6007:127.0.0.1:6007 HOST, then open http://localhost:6007/',
    );
  }
  const navigates = sent['sec-fetch-mode'] === 'navigate';
  if (sent['sec-fetch-site'] === 'cross-site' && !navigates) throw new Refusal(403, 'not for other sites');
}

function windowOf(query: URLSearchParams): Window {
  const number = (name: string): number | null => {
    const value = Number.parseFloat(query.get(name) ?? '');
    return Number.isFinite(value) ? value : null;
  };
  const axis = query.get('x') ?? 'step';
  if (!isAxis(axis)) throw new Refusal(400, 'x is step, tokens or time');
  const clamp = (value: number, least: number, most: number) =>
    Math.min(Math.max(Math.round(value), least), most);
  return {
    axis,
    from: number('from'),
    to: number('to'),
    points: clamp(number('points') ?? 600, 16, 8192),
    smooth: clamp(number('smooth') ?? 1, 1, 1_000_000),
  };
}

function isAxis(text: string): text is Axis {
  return text === 'step' || text === 'tokens' || text === 'time';
}

function send(response: ServerResponse, type: string, body: string | Buffer): void {
  response.writeHead(200, { 'Content-Type': type });
  response.end(body);
}

/** Whether the port was free. */
async function listen(server: Server, port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException) => {
      server.off('listening', listening);
      if (cause.code === 'EADDRINUSE') resolve(false);
      else if (cause.code === 'EACCES') {
        reject(
          errorFor('USAGE', `port ${port} needs more rights`, 'name a port above 1023 with --port', cause),
        );
      } else reject(cause);
    };
    const listening = () => {
      server.off('error', failed);
      resolve(true);
    };
    server.once('error', failed);
    server.once('listening', listening);
    server.listen(port, '127.0.0.1');
  });
}
