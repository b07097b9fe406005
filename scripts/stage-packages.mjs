/**
 * Lays out what is published: `candlewick`, without a binary, and one package a platform, which it names as an optional
 * dependency. No package runs a script when it is installed; the loader takes the one that npm chose.
 *
 *     node scripts/stage-packages.mjs BINARIES OUT
 *
 * BINARIES holds `candlewick.<triple>.node`, at any depth; OUT gets a folder a package. Only what is there is staged:
 * `scripts/release-gate.mjs` says whether that is all.
 */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { run } from '../src/setup/run.mjs';
import { npmCommand } from './parts.mjs';
import { binaryName, packageName, targets } from './targets.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));

/**
 * @param {string} binaries
 * @param {string} out
 * @returns {Promise<{ name: string, folder: string }[]>} the main package first
 */
export async function stagePackages(binaries, out) {
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const found = readdirSync(binaries, { recursive: true }).map((name) => join(binaries, String(name)));
  const there = targets.flatMap((target) => {
    const file = found.find((path) => basename(path) === binaryName(target));
    return file === undefined ? [] : [{ target, file }];
  });
  if (there.length === 0) throw new Error(`${binaries} holds no candlewick.<platform>.node`);
  rmSync(out, { recursive: true, force: true });
  const main = join(out, manifest.name);
  await stageMain(main, manifest, there);
  return [
    { name: manifest.name, folder: main },
    ...there.map(({ target, file }) => {
      const folder = join(out, packageName(target));
      stagePlatform(folder, manifest, target, file);
      return { name: packageName(target), folder };
    }),
  ];
}

async function stageMain(folder, manifest, there) {
  const [npm, first] = npmCommand(process.env);
  const result = await run(npm, [...first, 'pack', '--dry-run', '--ignore-scripts', '--json'], { cwd: root });
  if (result.code !== 0) throw new Error(`npm pack --dry-run: ${result.output}`);
  for (const { path } of JSON.parse(result.stdout)[0].files) {
    if (path.endsWith('.node') || path === 'package.json') continue;
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    copyFileSync(join(root, path), join(folder, path));
  }
  // What concerns a checkout stays there.
  const { private: _private, scripts: _scripts, devDependencies: _tools, napi: _napi, ...kept } = manifest;
  const optionalDependencies = Object.fromEntries(
    there.map(({ target }) => [packageName(target), manifest.version]),
  );
  writeManifest(folder, { ...kept, optionalDependencies, publishConfig });
}

/** Provenance: npm shows the workflow and the commit that a package was built from. */
const publishConfig = { access: 'public', provenance: true };

function stagePlatform(folder, { name, version, license, repository, engines }, target, file) {
  const { os, cpu, libc, cuda, triple } = target;
  const binary = binaryName(target);
  mkdirSync(folder, { recursive: true });
  copyFileSync(file, join(folder, binary));
  for (const licence of ['LICENSE-APACHE', 'LICENSE-MIT'])
    copyFileSync(join(root, licence), join(folder, licence));
  const description = `The native binary of ${name} for ${triple}${cuda ? ', with CUDA' : ''}.`;
  writeFileSync(
    join(folder, 'README.md'),
    `# ${packageName(target)}\n\n${description} It is installed with [${name}](https://www.npmjs.com/package/${name}), which chooses it.\n`,
  );
  writeManifest(folder, {
    name: packageName(target),
    version,
    description,
    license,
    repository,
    os: [os],
    cpu: [cpu],
    ...(libc === undefined ? {} : { libc: [libc] }),
    main: binary,
    files: [binary, 'LICENSE-APACHE', 'LICENSE-MIT'],
    engines,
    publishConfig,
  });
}

function writeManifest(folder, manifest) {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [binaries, out] = process.argv.slice(2);
  if (binaries === undefined || out === undefined) {
    process.stderr.write('usage: node scripts/stage-packages.mjs BINARIES OUT\n');
    process.exit(2);
  }
  for (const { name, folder } of await stagePackages(resolve(binaries), resolve(out)))
    process.stdout.write(`${name}\t${folder}\n`);
}
