/** `npm run build [-- typescript|native]`: the compiled parts alone, where the packages are installed. */
import { fail } from './output.mjs';
import * as parts from './parts.mjs';
import { SetupError } from '../src/setup/python.mjs';
import { root } from './set-up.mjs';

const wanted = process.argv.slice(2);
const work = { root, env: process.env, signal: new AbortController().signal };
try {
  if (wanted.length === 0 || wanted.includes('typescript')) await parts.typescript(work);
  if (wanted.length === 0 || wanted.includes('native')) await parts.native(work);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  fail([error], error.exitCode ?? 3);
}
