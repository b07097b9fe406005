/**
 * The platforms that a release has a package for. `triple` is napi-rs's name and ends the package's; `rust` is the
 * compiler's. `cuda` says that the binary must hold CUDA; `glibc` is the newest version that it may ask for.
 *
 * @typedef {object} Target
 * @property {string} triple
 * @property {string} rust
 * @property {NodeJS.Platform} os
 * @property {'x64' | 'arm64'} cpu
 * @property {'glibc' | 'musl'} [libc]
 * @property {string} [glibc]
 * @property {boolean} cuda
 */

/** @type {readonly Target[]} */
export const targets = [
  {
    triple: 'linux-x64-gnu',
    rust: 'x86_64-unknown-linux-gnu',
    os: 'linux',
    cpu: 'x64',
    libc: 'glibc',
    // That of Debian 10 and RHEL 8, and what Node 20 itself asks for.
    glibc: '2.28',
    cuda: true,
  },
  {
    triple: 'linux-arm64-gnu',
    rust: 'aarch64-unknown-linux-gnu',
    os: 'linux',
    cpu: 'arm64',
    libc: 'glibc',
    glibc: '2.28',
    cuda: true,
  },
  {
    triple: 'linux-x64-musl',
    rust: 'x86_64-unknown-linux-musl',
    os: 'linux',
    cpu: 'x64',
    libc: 'musl',
    cuda: false,
  },
  { triple: 'darwin-arm64', rust: 'aarch64-apple-darwin', os: 'darwin', cpu: 'arm64', cuda: false },
  { triple: 'darwin-x64', rust: 'x86_64-apple-darwin', os: 'darwin', cpu: 'x64', cuda: false },
  { triple: 'win32-x64-msvc', rust: 'x86_64-pc-windows-msvc', os: 'win32', cpu: 'x64', cuda: false },
];

/** @param {string} triple */
export function targetNamed(triple) {
  const found = targets.find((target) => target.triple === triple);
  if (found === undefined) {
    throw new Error(
      `there is no target ${triple}; there are ${targets.map((target) => target.triple).join(', ')}`,
    );
  }
  return found;
}

/** @param {{ triple: string }} target */
export const binaryName = ({ triple }) => `candlewick.${triple}.node`;

/** @param {{ triple: string }} target */
export const packageName = ({ triple }) => `candlewick-${triple}`;
