/** Where the native binary of this process is, and why that one. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve as resolvePath } from 'node:path';
import { fileURLToPath } from 'node:url';
import { errorFor } from '../errors.js';
import { packageOf, platformsWithPackage, platformTriple } from './platform.js';

/** A binary that was chosen. */
export interface Binary {
  file: string;
  /** The platform that it is for, for instance `linux-x64-gnu`. */
  triple: string;
  /** The npm package that it is from, with its version, as npm is told to install it; null for one that was built here. */
  package: string | null;
  /** Where it is from, in words. */
  why: string;
}

interface Manifest {
  version: string;
}

/**
 * The binary for this process: that of CANDLEWICK_NATIVE, one that was built here, else that of the platform's package.
 * Throws NATIVE_NOT_FOUND, naming the package to install. `from` is a module of `src/native` or `dist/native`.
 */
export function findBinary(from: string = import.meta.url, triple: string = platformTriple()): Binary {
  const name = `candlewick.${triple}.node`;
  const named = process.env['CANDLEWICK_NATIVE'];
  if (named) return { file: resolvePath(named), triple, package: null, why: 'named by CANDLEWICK_NATIVE' };
  // With CUDA, where that was built; beside the compiled JavaScript; or, when a test runs the sources, where the build
  // puts it.
  const built = ['../../dist/native-cuda/', './', '../../dist/native/']
    .map((place) => fileURLToPath(new URL(`${place}${name}`, from)))
    .find((file) => existsSync(file));
  if (built !== undefined) return { file: built, triple, package: null, why: 'built here' };

  const version = versionIn(fileURLToPath(new URL('../../package.json', from)));
  const wanted = packageOf(triple);
  const install = `npm install ${wanted}@${version}`;
  if (!platformsWithPackage.includes(triple)) {
    throw errorFor(
      'NATIVE_NOT_FOUND',
      `there is no native binary for ${triple}`,
      `there are packages for ${platformsWithPackage.join(', ')}; for others build it: npm run build in a checkout`,
    );
  }
  const require = createRequire(from);
  const manifest = resolve(require, `${wanted}/package.json`);
  if (manifest === null) {
    throw errorFor(
      'NATIVE_NOT_FOUND',
      `this installation has no native binary for ${triple}`,
      `${install} (npm leaves it out with --omit=optional, and where node_modules or the lock file came from another system); in a checkout: npm run build`,
    );
  }
  const other = versionIn(manifest);
  if (other !== version) {
    throw errorFor(
      'NATIVE_NOT_FOUND',
      `${wanted} is version ${other}, and candlewick is ${version}`,
      `${install}, the same version for both`,
    );
  }
  const file = resolve(require, `${wanted}/${name}`);
  if (file === null) {
    throw errorFor(
      'NATIVE_NOT_FOUND',
      `${wanted} is installed without its file ${name}`,
      `install it again: npm install --force ${wanted}@${version}`,
    );
  }
  return { file, triple, package: `${wanted}@${version}`, why: `from ${wanted}` };
}

/** What to do about a binary that is there and does not load. */
export function replaceHint({ package: name }: Pick<Binary, 'package'>): string {
  if (name === null) return 'in a checkout: npm run build; otherwise reinstall candlewick on this machine';
  return `install it again on this machine: npm install --force ${name}`;
}

function resolve(require: NodeJS.Require, name: string): string | null {
  try {
    return require.resolve(name);
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'MODULE_NOT_FOUND') return null;
    throw cause;
  }
}

function versionIn(file: string): string {
  return (JSON.parse(readFileSync(file, 'utf8')) as Manifest).version;
}
