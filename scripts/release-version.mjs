/**
 * `node scripts/release-version.mjs v0.1.0`: fails where tag, package.json, Cargo.toml and CHANGELOG.md disagree, and where
 * the changelog calls the version unreleased. With `--notes` it prints what the changelog says of it.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const read = (path) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), 'utf8');
const tag = process.argv[2] ?? '';
const version = JSON.parse(read('package.json')).version;
const versions = {
  tag: tag.replace(/^v/, ''),
  'Cargo.toml': read('Cargo.toml').match(/^version\s*=\s*"([^"]+)"/m)?.[1],
  'CHANGELOG.md': read('CHANGELOG.md').match(/^## (\d\S*)/m)?.[1],
};
let wrong = 0;
for (const [place, found] of Object.entries(versions)) {
  if (found === version) continue;
  wrong++;
  process.stderr.write(`error: ${place} says ${found ?? 'nothing'}; package.json says ${version}\n`);
}
const entry = read('CHANGELOG.md').match(/^## \d\S*(.*)\n([^]*?)(?=^## |(?![^]))/m);
if (/unreleased/i.test(entry?.[1] ?? '')) {
  wrong++;
  process.stderr.write(`error: CHANGELOG.md calls ${version} unreleased; give it its date\n`);
}
if (process.argv.includes('--notes')) process.stdout.write(`${entry?.[2].trim() ?? ''}\n`);
process.exit(wrong > 0 ? 1 : 0);
