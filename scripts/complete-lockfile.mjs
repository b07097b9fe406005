/**
 * Adds to package-lock.json the optional packages of other platforms that are missing there. npm leaves them out
 * where it writes the lock file against a mirror that lacks them, and `npm ci` then refuses the file everywhere.
 * Needed after `npm install` has changed the lock file; changes nothing where it is complete.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const systems = [
  'android',
  'darwin',
  'freebsd',
  'linux',
  'openharmony',
  'win32',
  'sunos',
  'openbsd',
  'netbsd',
  'aix',
];
const processors = {
  'arm-eabi': 'arm',
  'arm-gnueabihf': 'arm',
  'arm-musleabihf': 'arm',
  arm64: 'arm64',
  arm: 'arm',
  ia32: 'ia32',
  loong64: 'loong64',
  ppc64: 'ppc64',
  riscv64: 'riscv64',
  s390x: 's390x',
  wasm32: 'wasm32',
  x64: 'x64',
};

/**
 * What a platform package's name says of itself.
 *
 * @param {string} name such as @oxlint/binding-linux-arm64-musl
 * @returns {{ cpu?: string[], libc?: string[], os?: string[] } | null} null where the name says nothing
 */
export function platformOf(name) {
  const words = name.split('/').pop() ?? '';
  const os = systems.filter((system) => words.split('-').includes(system));
  const cpu = Object.keys(processors).find((word) => new RegExp(`(^|-)${word}(-|$)`).test(words));
  if (!cpu) return null;
  const libc = words.endsWith('-musl') ? ['musl'] : words.endsWith('-gnu') ? ['glibc'] : null;
  return {
    cpu: [processors[cpu]],
    ...(libc ? { libc } : {}),
    ...(os.length > 0 ? { os } : {}),
  };
}

/**
 * @param {{ packages: Record<string, any> }} lock
 * @returns {string[]} names that were missing and now stand in it
 */
export function complete(lock) {
  const added = [];
  for (const [owner, entry] of Object.entries(lock.packages)) {
    for (const [name, range] of Object.entries(entry.optionalDependencies ?? {})) {
      const places = [`${owner}/node_modules/${name}`, `node_modules/${name}`];
      const platform = platformOf(name);
      if (platform === null || places.some((place) => place in lock.packages)) continue;
      // Platform packages are pinned by their owner, so that the range is a version.
      if (!/^\d/.test(range)) throw new Error(`${owner} asks for ${name} ${range}: not a version`);
      const { cpu, ...rest } = platform;
      lock.packages[places[1]] = {
        version: range,
        cpu,
        ...(entry.dev ? { dev: true } : {}),
        ...(rest.libc ? { libc: rest.libc } : {}),
        optional: true,
        ...(rest.os ? { os: rest.os } : {}),
      };
      added.push(name);
    }
  }
  const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1));
  lock.packages = Object.fromEntries(sorted);
  return added;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const file = fileURLToPath(new URL('../package-lock.json', import.meta.url));
  const lock = JSON.parse(readFileSync(file, 'utf8'));
  const added = complete(lock);
  if (added.length > 0) writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`);
  process.stdout.write(`${added.length} added${added.length > 0 ? `: ${added.join(', ')}` : ''}\n`);
}
