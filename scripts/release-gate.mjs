/**
 * What must hold of the packages of a release before any of them is published: `node scripts/release-gate.mjs STAGED`,
 * where STAGED is what `stage-packages.mjs` laid out. A package that is missing, or one without CUDA that should have it,
 * would otherwise be noticed by those who install it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { faults, inspectBinary } from './cuda/binary.mjs';
import { byVersion, linuxNeeds, newestGlibc } from './elf.mjs';
import { binaryName, packageName, targets } from './targets.mjs';

const { name, version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

/**
 * @param {string} staged
 * @returns {string[]} what is wrong, in words; nothing where all may be published
 */
export function gate(staged) {
  const wrong = [];
  const main = manifestOf(staged, name);
  if (main === null) wrong.push(`${name}: the package is missing`);
  else if (main.version !== version) wrong.push(`${name}: version ${main.version}, and this is ${version}`);
  for (const target of targets) {
    const own = packageName(target);
    for (const fault of faultsOf(staged, target)) wrong.push(`${own}: ${fault}`);
    if (main !== null && main.optionalDependencies?.[own] !== version)
      wrong.push(`${name}: ${own} ${version} is not among its optional dependencies`);
  }
  return wrong;
}

function faultsOf(staged, target) {
  const manifest = manifestOf(staged, packageName(target));
  if (manifest === null) return ['the package is missing'];
  const wrong = [];
  if (manifest.version !== version) wrong.push(`version ${manifest.version}, and this is ${version}`);
  const file = join(staged, packageName(target), binaryName(target));
  if (!existsSync(file)) return [...wrong, `${binaryName(target)} is missing`];
  return [...wrong, ...faultsOfBinary(file, target)];
}

/**
 * @param {string} file
 * @param {import('./targets.mjs').Target} target
 * @returns {string[]} why it is not to be published for that platform, in words
 */
export function faultsOfBinary(file, target) {
  if (target.os !== 'linux') return faultsOfForeign(file, target);
  const wrong = [];
  const { machine, versions } = linuxNeeds(file);
  if (machine !== target.cpu) wrong.push(`the binary is for ${machine ?? 'an unknown processor'}`);
  const glibc = newestGlibc(versions);
  if (target.glibc === undefined && glibc !== null) wrong.push(`the binary wants glibc ${glibc}`);
  if (target.glibc !== undefined && glibc !== null && byVersion(glibc, target.glibc) > 0)
    wrong.push(`the binary wants glibc ${glibc}, and ${target.glibc} at most is allowed`);
  if (target.cuda) wrong.push(...faultsOfCuda(file));
  return wrong;
}

/** Mach-O and PE are told apart by their first bytes, and their processors by a field of their headers. */
function faultsOfForeign(file, { os, cpu }) {
  const bytes = readFileSync(file);
  const header = os === 'win32' && bytes.readUInt16LE(0) === 0x5a4d ? bytes.readUInt32LE(60) : 0;
  const found =
    os === 'win32'
      ? header > 0 && bytes.readUInt32LE(header) === 0x4550
        ? { 0x8664: 'x64', 0xaa64: 'arm64' }[bytes.readUInt16LE(header + 4)]
        : undefined
      : bytes.readUInt32LE(0) === 0xfeedfacf
        ? { 0x01000007: 'x64', 0x0100000c: 'arm64' }[bytes.readUInt32LE(4)]
        : undefined;
  return found === cpu ? [] : [`the binary is not one for ${os} on ${cpu}`];
}

function faultsOfCuda(file) {
  const inside = inspectBinary(file);
  if (inside.architectures.length === 0) return ['the binary has no CUDA inside'];
  return faults(inside);
}

function manifestOf(staged, package_) {
  const file = join(staged, package_, 'package.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [staged] = process.argv.slice(2);
  if (staged === undefined) {
    process.stderr.write('usage: node scripts/release-gate.mjs STAGED\n');
    process.exit(2);
  }
  const wrong = gate(resolve(staged));
  for (const line of wrong) process.stderr.write(`error: ${line}\n`);
  if (wrong.length === 0)
    process.stdout.write(`${name} ${version}: all ${targets.length + 1} packages are whole\n`);
  process.exit(wrong.length > 0 ? 1 : 0);
}
