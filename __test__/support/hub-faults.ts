/** What a hub of the tests does wrong: scripted by the request, described in JSON, or at random from a seed. */
import { createHash } from 'node:crypto';

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
  /** Cut the connection without an answer. */
  reset?: boolean;
  /** Cut the connection after this many bytes of the body. */
  truncate?: number;
  /** Send this many bytes of the body and then nothing, until the client gives up. */
  stall?: number;
  /** Offsets in the file of bytes whose bits are flipped on the way. */
  corrupt?: readonly number[];
  /** Answer a ranged request with the whole file. */
  ignoreRange?: boolean;
  /** Answer 302 to a link that works this many times and is answered with 403 from then on. */
  redirect?: number;
}

/** Decides on a fault for a request; null or undefined for none. */
export type FaultScript = (request: HubRequest) => Fault | null | undefined;

/** A fault that can be told to a hub in another process. */
export interface FaultRule {
  /** Regular expression that the request's path has to match; default: every path. */
  path?: string;
  method?: string;
  /** Only requests of a range. */
  ranged?: boolean;
  /** Matching requests that are let through first; default: 0. */
  after?: number;
  /** Matching requests that are answered with it; default: all. */
  times?: number;
  fault: Fault;
}

/** The script of some rules; the first that matches decides. */
export function scriptOf(rules: readonly FaultRule[]): FaultScript {
  const seen = rules.map(() => 0);
  return (request) => {
    for (const [index, rule] of rules.entries()) {
      if (rule.path !== undefined && !new RegExp(rule.path).test(request.path)) continue;
      if (rule.method !== undefined && rule.method !== request.method) continue;
      if (rule.ranged === true && request.range === null) continue;
      const count = seen[index] ?? 0;
      seen[index] = count + 1;
      const after = rule.after ?? 0;
      if (count >= after && count < after + (rule.times ?? Infinity)) return rule.fault;
    }
    return null;
  };
}

/** Kinds of random faults that are over soon and need nothing of the client but to ask again. */
export const quickFaults = ['503', '500', '429', '408', 'reset', 'cut', 'gone', 'whole', 'expired'] as const;

/** A kind of random fault. `stall` takes as long as the client waits; `damage` needs data with checksums. */
export type RandomKind = (typeof quickFaults)[number] | 'stall' | 'damage';

/**
 * Answers a share `rate` of the requests with faults. They depend on the seed and, for each path, on how often it was
 * asked for: not on time, and not on what is asked for beside it.
 */
export function randomFaults(
  seed: number,
  rate: number,
  kinds: readonly RandomKind[] = quickFaults,
): FaultScript {
  return (request) => {
    const { before, method, path, range } = request;
    const digest = createHash('md5').update(`${seed} ${method} ${path} ${before}`).digest();
    if (digest.readUInt32LE(0) / 2 ** 32 >= rate) return null;
    const kind = kinds[digest.readUInt32LE(4) % kinds.length];
    const first = Number(/^bytes=(\d+)-/.exec(range ?? '')?.[1] ?? 0);
    const isData = method === 'GET' && range !== null;
    switch (kind) {
      case '503':
      case '500':
      case '408':
        return { status: Number(kind) };
      case '429':
        return { status: 429, headers: { ratelimit: '"api";r=0;t=0' } };
      case 'reset':
        return { reset: true };
      case 'cut':
        return { truncate: digest.readUInt16LE(8) };
      // For a listing these would mean what they say.
      case 'gone':
        return isData ? { status: 404 } : { status: 502 };
      case 'whole':
        return isData ? { ignoreRange: true } : { status: 504 };
      case 'expired':
        return isData ? { redirect: 0 } : { status: 503 };
      case 'stall':
        return { stall: digest.readUInt16LE(8) };
      case 'damage':
        return isData ? { corrupt: [first + (digest.readUInt16LE(8) % 500)] } : null;
      case undefined:
        return null;
    }
  };
}
