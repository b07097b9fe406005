/** The main job: a tokenizer and a small model from the dataset `sample`, in about three minutes. */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { bold, line } from './output.mjs';
import { root, setUp } from './set-up.mjs';

/** @param {string[]} extra options for `candlewick train` */
export async function main(extra) {
  const { env } = await setUp();
  const program = join(root, 'bin/candlewick.js');
  const args = ['train', '--config', 'configs/quickstart.yaml', '--output', 'runs/quickstart', ...extra];
  line(bold(`candlewick ${args.join(' ')}`));
  // In this process and not in a child: one Ctrl+C must arrive once, since the second one stops without saving.
  Object.assign(process.env, env);
  process.chdir(root);
  process.argv = [process.execPath, program, ...args];
  await import(pathToFileURL(program).href);
}
