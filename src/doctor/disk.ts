/** The directory that a run is written to. */
import { mkdtemp, open, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { bytesInWords } from '../estimate/index.js';
import { fail, ok, warn } from './check.js';
import type { Check, DoctorOptions } from './check.js';

const PROBE_BYTES = 64 << 20;
const LEAST_SPACE = 0.2e9;
const LITTLE_SPACE = 5e9;
const SLOW = 50e6;

/** Writes some megabytes where the run would be, waits until they are on the device, and takes them away. */
export async function checkDisk({ output = 'runs' }: DoctorOptions): Promise<Check> {
  const place = await existing(resolve(output));
  const cure = 'name another directory with --output';
  let free: number;
  let speed: number;
  let made: string | undefined;
  try {
    const { bavail, bsize } = await statfs(place);
    free = bavail * bsize;
    made = await mkdtemp(join(place, '.candlewick-doctor-'));
    const size = Math.min(PROBE_BYTES, Math.max(1 << 20, Math.floor(free / 4)));
    speed = await writeSpeed(join(made, 'probe'), size);
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? cause.code : undefined;
    if (code === 'ENOSPC' || code === 'EDQUOT') {
      return fail('disk', `${place} is full`, `free some space, or ${cure}`);
    }
    return fail(
      'disk',
      `cannot write ${place}: ${cause instanceof Error ? cause.message : String(cause)}`,
      cure,
    );
  } finally {
    if (made !== undefined) await rm(made, { recursive: true, force: true });
  }
  const found = `${place}: ${bytesInWords(free)} free, writes ${bytesInWords(speed)} a second`;
  const more = `free some space, or ${cure}; candlewick estimate CONFIG says what a run writes`;
  if (free < LEAST_SPACE) return fail('disk', found, more);
  if (free < LITTLE_SPACE) return warn('disk', found, more);
  return speed < SLOW
    ? warn('disk', found, `checkpoints will take long: ${cure} on a local disk`)
    : ok('disk', found);
}

/** The nearest directory above that exists: making what is below it needs no more rights than that. */
async function existing(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    const found = await stat(at).catch(() => null);
    if (found !== null || at === dirname(at)) return at;
  }
}

async function writeSpeed(path: string, size: number): Promise<number> {
  const block = Buffer.alloc(Math.min(size, 1 << 20), 0x63);
  const began = performance.now();
  const file = await open(path, 'w');
  try {
    for (let written = 0; written < size; written += block.length) await file.write(block);
    await file.sync();
  } finally {
    await file.close();
  }
  return size / ((performance.now() - began) / 1000);
}
