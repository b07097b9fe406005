/** Which binaries there are, and which of them this process can load. */
import { closeSync, openSync, readSync } from 'node:fs';

/** Platforms with a package of their own, as napi-rs names them; `scripts/targets.mjs` says how each is built. */
export const platformsWithPackage: readonly string[] = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'darwin-arm64',
  'darwin-x64',
  'win32-x64-msvc',
];

/** The npm package that holds the binary of a platform. */
export function packageOf(triple: string): string {
  return `candlewick-${triple}`;
}

let known: string | undefined;

/** The platform as napi-rs names it: which binary this process can load. */
export function platformTriple(): string {
  known ??= tripleOf(process);
  return known;
}

function tripleOf({ platform, arch, execPath }: NodeJS.Process): string {
  if (platform === 'linux') return `linux-${arch}-${cLibraryOf(execPath)}`;
  if (platform === 'win32') return `win32-${arch}-msvc`;
  return `${platform}-${arch}`;
}

/**
 * The C library that a program was linked for, from the loader that its ELF header names. The machine may have both
 * (Alpine with gcompat, Debian with musl installed), and Node's own report takes seconds where names resolve slowly.
 */
export function cLibraryOf(program: string): 'gnu' | 'musl' {
  const head = Buffer.alloc(4096);
  try {
    const file = openSync(program, 'r');
    try {
      readSync(file, head, 0, head.length, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    // Not readable: what nearly every system has.
    return 'gnu';
  }
  return head.includes('/ld-musl-') ? 'musl' : 'gnu';
}
