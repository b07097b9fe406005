/** The packages that a release consists of. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { stagePackages } from '../scripts/stage-packages.mjs';
import { binaryName, targets } from '../scripts/targets.mjs';
import { platformsWithPackage } from '../src/native/platform.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const json = (path) => JSON.parse(readFileSync(path, 'utf8'));
const manifest = json(join(root, 'package.json'));
let folder;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'candlewick-release-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

it('the loader, the scripts and napi know the same platforms', () => {
  expect(targets.map(({ triple }) => triple)).toEqual(platformsWithPackage);
  expect(targets.map(({ rust }) => rust)).toEqual(manifest.napi.targets);
});

it('a checkout is not published by mistake', () => {
  expect(manifest.private).toBe(true);
});

it('staged packages name each other, and run nothing when they are installed', async () => {
  // One in a folder of its own, as an artefact is downloaded.
  mkdirSync(join(folder, 'binaries/musl'), { recursive: true });
  for (const target of targets) {
    const place = target.libc === 'musl' ? 'binaries/musl' : 'binaries';
    writeFileSync(join(folder, place, binaryName(target)), `binary for ${target.triple}`);
  }
  const staged = await stagePackages(join(folder, 'binaries'), join(folder, 'staged'));
  expect(staged.map(({ name }) => name)).toEqual([
    'candlewick',
    ...targets.map(({ triple }) => `candlewick-${triple}`),
  ]);

  const main = json(join(folder, 'staged/candlewick/package.json'));
  expect(main.optionalDependencies).toEqual(
    Object.fromEntries(targets.map(({ triple }) => [`candlewick-${triple}`, manifest.version])),
  );
  expect(main).not.toHaveProperty('private');
  expect(main.exports).toEqual(manifest.exports);
  for (const { name, folder } of staged) {
    const { scripts, devDependencies, version } = json(join(folder, 'package.json'));
    expect({ name, scripts, devDependencies, version }).toEqual({ name, version: manifest.version });
    const binaries = readdirSync(folder, { recursive: true }).filter((file) => file.endsWith('.node'));
    expect(binaries).toHaveLength(name === 'candlewick' ? 0 : 1);
  }
  const musl = json(join(folder, 'staged/candlewick-linux-x64-musl/package.json'));
  expect(musl).toMatchObject({
    os: ['linux'],
    cpu: ['x64'],
    libc: ['musl'],
    main: 'candlewick.linux-x64-musl.node',
  });
});

it('a folder without binaries is refused', async () => {
  await expect(stagePackages(folder, join(folder, 'staged'))).rejects.toThrow(
    'holds no candlewick.<platform>.node',
  );
});
