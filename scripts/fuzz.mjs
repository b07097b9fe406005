/**
 * `npm run fuzz [-- --seconds 600] [TARGET …]`: each fuzz target for so long, one after the other; default: 600 s, all.
 *
 * Wants `cargo install cargo-fuzz` and `rustup toolchain install nightly`. What is found lies under fuzz/artifacts; what
 * was learned, under fuzz/corpus, is used again.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { line } from './output.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(root, 'fuzz');
const all = readdirSync(join(folder, 'targets')).map((name) => name.replace(/\.rs$/, ''));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '600' } },
});
const unknown = positionals.find((name) => !all.includes(name));
if (unknown !== undefined || !(Number(values.seconds) > 0)) {
  line(`${unknown ?? values.seconds}: the targets are ${all.join(', ')}; --seconds takes a number`);
  process.exit(2);
}
if (spawnSync('cargo', ['+nightly', 'fuzz', '--version']).status !== 0) {
  line('cargo-fuzz is missing: rustup toolchain install nightly, then cargo install cargo-fuzz');
  process.exit(3);
}
const failed = [];
for (const target of positionals.length > 0 ? positionals : all) {
  const corpus = join(folder, 'corpus', target);
  mkdirSync(corpus, { recursive: true });
  const limits = [`-max_total_time=${values.seconds}`, '-max_len=8192', '-timeout=20', '-rss_limit_mb=2048'];
  const args = ['+nightly', 'fuzz', 'run', target, corpus, join(folder, 'seeds', target), '--', ...limits];
  const { status } = spawnSync('cargo', args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) failed.push(target);
  line(`${target}: ${status === 0 ? 'clean' : `FAILED (${status})`}`);
}
process.exitCode = failed.length > 0 ? 1 : 0;
