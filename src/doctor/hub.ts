/** The hub: reachable, and the token good; and the clock, which its answers tell. */
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fail, ok, warn } from './check.js';
import type { Check, DoctorOptions } from './check.js';

const TIMEOUT_MS = 8_000;
/** A clock that is further off breaks certificates and signed links. */
const SKEW_SECONDS = 120;

export async function checkHub({
  env = process.env,
  hubTimeout = TIMEOUT_MS,
}: DoctorOptions): Promise<Check[]> {
  if (/^(1|true|yes|on)$/i.test(env['HF_HUB_OFFLINE'] ?? '')) {
    return [ok('hub', 'HF_HUB_OFFLINE is set: only local data will be read')];
  }
  const endpoint = (env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, '');
  const token = await tokenOf(env);
  let response: Response;
  try {
    response = await fetch(`${endpoint}/api/whoami-v2`, {
      headers: token === null ? {} : { authorization: `Bearer ${token.value}` },
      signal: AbortSignal.timeout(hubTimeout),
    });
  } catch (cause) {
    return [unreachable(endpoint, env, cause, hubTimeout)];
  }
  const body = await response.json().catch(() => null);
  return [whatItSays(endpoint, response.status, token, body), clockOf(response)].filter(
    (check) => check !== null,
  );
}

function whatItSays(endpoint: string, status: number, token: { from: string } | null, body: unknown): Check {
  if (status >= 500 || status === 429) {
    return fail('hub', `${endpoint} answers ${status}`, 'it is down or overloaded: try again later');
  }
  if (token === null) {
    return ok('hub', `${endpoint} answers; no token, so only public data can be read`);
  }
  if (status === 200) {
    const name = (body as { name?: unknown } | null)?.name;
    return ok(
      'hub',
      `${endpoint} answers; ${token.from} is good${typeof name === 'string' ? ` (${name})` : ''}`,
    );
  }
  if (status === 401 || status === 403) {
    return fail(
      'hub',
      `${endpoint} answers, and refuses the token of ${token.from} (${status})`,
      `make a new token at ${endpoint}/settings/tokens and set HF_TOKEN to it; or unset it to read public data`,
    );
  }
  return warn(
    'hub',
    `${endpoint} answers ${status} when asked about the token of ${token.from}`,
    'check HF_ENDPOINT: a mirror may serve files without knowing tokens',
  );
}

function unreachable(endpoint: string, env: NodeJS.ProcessEnv, cause: unknown, timeout: number): Check {
  const proxy = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'].find((name) => env[name]);
  const detail = `${endpoint} cannot be reached: ${reason(cause, timeout)}`;
  if (proxy !== undefined) {
    return warn(
      'hub',
      `${detail} (directly; ${proxy} is set, which this check does not go through and the streamer does)`,
      'if streaming fails too, check the proxy',
    );
  }
  return fail(
    'hub',
    detail,
    'check the network, DNS, or HF_ENDPOINT; local data and sample need no hub (HF_HUB_OFFLINE=1 says so)',
  );
}

/** fetch says "fetch failed" and hides why one or two causes deep. */
function reason(cause: unknown, timeout: number): string {
  for (let at: unknown = cause; at instanceof Error; at = at.cause) {
    if (at.name === 'TimeoutError') return `no answer within ${timeout / 1000} s`;
    if ('code' in at && typeof at.code === 'string') return at.code;
    if (at.cause === undefined) return at.message;
  }
  return String(cause);
}

/** Where huggingface_hub looks, in its order. */
async function tokenOf(env: NodeJS.ProcessEnv): Promise<{ value: string; from: string } | null> {
  for (const name of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']) {
    const value = env[name]?.trim();
    if (value) return { value, from: name };
  }
  const home = env['HF_HOME'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'huggingface');
  const file = env['HF_TOKEN_PATH'] || join(home, 'token');
  const value = (await readFile(file, 'utf8').catch(() => '')).trim();
  return value === '' ? null : { value, from: file };
}

function clockOf(response: Response): Check | null {
  const date = Date.parse(response.headers.get('date') ?? '');
  if (Number.isNaN(date)) return null;
  const skew = Math.round((Date.now() - date) / 1000);
  const words = `${Math.abs(skew)} s ${skew < 0 ? 'behind' : 'ahead of'} the hub's`;
  return Math.abs(skew) > SKEW_SECONDS
    ? fail(
        'clock',
        words,
        'set the clock (timedatectl set-ntp true): certificates and signed links depend on it',
      )
    : ok('clock', skew === 0 ? "as the hub's" : words);
}
