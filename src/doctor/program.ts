/** The programs that this package consists of: Node and the native binding. */
import { readFileSync } from 'node:fs';
import { CandlewickError } from '../errors.js';
import { findBinary, native, platformTriple } from '../native/index.js';
import { olderThan } from '../setup/python.mjs';
import { fail, ok } from './check.js';
import type { Check, DoctorOptions } from './check.js';

interface Manifest {
  version: string;
  engines: { node: string };
}

function manifest(): Manifest {
  return JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as Manifest;
}

export function checkNode(version = process.versions.node): Check {
  const least = manifest().engines.node.replace(/^\D*/, '');
  const found = `${version} on ${platformTriple()} (${least} or newer is needed)`;
  return olderThan(version, least)
    ? fail('node', found, `install Node ${least} or newer: https://nodejs.org`)
    : ok('node', found);
}

export function checkBinding({ loadBinding = () => native().version() }: DoctorOptions): Check {
  try {
    const [version, own] = [loadBinding(), manifest().version];
    if (version !== own) {
      return fail(
        'binding',
        `version ${version}, and the package is ${own}`,
        'in a checkout: npm run build; otherwise reinstall candlewick',
      );
    }
    const cuda = native().hasCuda() ? 'with CUDA inside' : 'without CUDA';
    return ok('binding', `version ${version}, ${platformTriple()}, ${findBinary().why}, ${cuda}`);
  } catch (cause) {
    if (cause instanceof CandlewickError) return fail('binding', cause.message, cause.hint);
    return fail('binding', `it does not load: ${String(cause)}`, 'reinstall candlewick on this machine');
  }
}
