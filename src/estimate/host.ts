import { readFileSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';

/** Memory of this machine, or of the container, whichever has less. */
export interface HostMemory {
  /** Bytes in all. */
  total: number;
  /** Bytes that a new process could take. */
  available: number;
  /** Whether a container's limit (cgroup) is what binds. */
  limited: boolean;
}

/** Looks at /proc/meminfo and the cgroup; elsewhere than on Linux at what Node knows. */
export function hostMemory(root = '/'): HostMemory {
  const meminfo = read(`${root}proc/meminfo`);
  const line = (name: string) => {
    const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo ?? '')?.[1];
    return kilobytes === undefined ? null : Number(kilobytes) * 1024;
  };
  const machine = {
    total: line('MemTotal') ?? totalmem(),
    available: line('MemAvailable') ?? freemem(),
  };
  const container = cgroup(root);
  if (container === null || container.limit >= machine.total) return { ...machine, limited: false };
  return {
    total: container.limit,
    available: Math.min(machine.available, Math.max(0, container.limit - container.used)),
    limited: true,
  };
}

/** The limit of this process's cgroup, version 2 or 1, and what counts against it; file cache does not. */
function cgroup(root: string): { limit: number; used: number } | null {
  const own = read(`${root}proc/self/cgroup`) ?? '';
  const second = /^0::(.*)$/m.exec(own)?.[1] ?? '/';
  const first = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$/m.exec(own)?.[1] ?? '/';
  const candidates = [
    ...above(second).map((path) => ({
      at: `${root}sys/fs/cgroup${path}`,
      limit: 'memory.max',
      used: 'memory.current',
    })),
    ...above(first).map((path) => ({
      at: `${root}sys/fs/cgroup/memory${path}`,
      limit: 'memory.limit_in_bytes',
      used: 'memory.usage_in_bytes',
    })),
  ];
  let tightest: { limit: number; used: number } | null = null;
  for (const { at, limit, used } of candidates) {
    const most = Number(read(`${at}/${limit}`) ?? Number.NaN);
    if (!Number.isFinite(most) || most >= (tightest?.limit ?? Infinity)) continue;
    const statistics = read(`${at}/memory.stat`) ?? '';
    const cache = Number(/^(?:total_)?inactive_file (\d+)/m.exec(statistics)?.[1] ?? 0);
    tightest = { limit: most, used: Math.max(0, Number(read(`${at}/${used}`) ?? 0) - cache) };
  }
  return tightest;
}

/** A path and everything above it: a limit of any of them binds. In a container its own cgroup is the root. */
function above(path: string): string[] {
  const parts = path.split('/').filter(Boolean);
  return Array.from({ length: parts.length + 1 }, (_, i) => {
    const kept = parts.slice(0, parts.length - i);
    return kept.length === 0 ? '' : `/${kept.join('/')}`;
  });
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}
