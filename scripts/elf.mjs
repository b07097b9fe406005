/** What a Linux binary asks of the system that loads it, read from its own tables (64-bit, little endian). */
import { readFileSync } from 'node:fs';

const VERSIONS_NEEDED = 0x6ffffffe;

/**
 * @param {string} file
 * @returns {{ machine: 'x64' | 'arm64' | null, versions: string[] }} versions of the C library's symbols, for instance
 *   `GLIBC_2.28`, oldest first
 */
export function linuxNeeds(file) {
  const bytes = readFileSync(file);
  if (bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new Error(`${file} is no 64-bit ELF file`);
  }
  const machine = { 62: 'x64', 183: 'arm64' }[bytes.readUInt16LE(18)] ?? null;
  const [start, size, count] = [
    Number(bytes.readBigUInt64LE(40)),
    bytes.readUInt16LE(58),
    bytes.readUInt16LE(60),
  ];
  const section = (index) => {
    const at = start + index * size;
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      link: bytes.readUInt32LE(at + 40),
      entries: bytes.readUInt32LE(at + 44),
    };
  };
  const versions = new Set();
  for (let index = 0; index < count; index++) {
    const { type, offset, link, entries } = section(index);
    if (type !== VERSIONS_NEEDED) continue;
    const names = section(link).offset;
    // A list of libraries, each with a list of versions; each entry says how far the next is.
    let library = offset;
    for (let i = 0; i < entries; i++) {
      let version = library + bytes.readUInt32LE(library + 8);
      for (let j = 0; j < bytes.readUInt16LE(library + 2); j++) {
        const name = names + bytes.readUInt32LE(version + 8);
        versions.add(bytes.toString('latin1', name, bytes.indexOf(0, name)));
        version += bytes.readUInt32LE(version + 12);
      }
      library += bytes.readUInt32LE(library + 12);
    }
  }
  return { machine, versions: [...versions].sort(byVersion) };
}

/** The newest version of glibc among symbol versions, for instance `2.28`; null where none is asked for. */
export function newestGlibc(versions) {
  const asked = versions.flatMap((name) => /^GLIBC_(\d[\d.]*)$/.exec(name)?.[1] ?? []);
  return asked.sort(byVersion).at(-1) ?? null;
}

/** Orders texts with numbers in them by the numbers: 2.9 is before 2.28. */
export function byVersion(a, b) {
  return a.localeCompare(b, 'en', { numeric: true });
}
