/** The packages that a release consists of. */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { buildCommand } from '../scripts/build-target.mjs';
import { gate } from '../scripts/release-gate.mjs';
import { stagePackages } from '../scripts/stage-packages.mjs';
import { binaryName, targets } from '../scripts/targets.mjs';
import { platformsWithPackage } from '../src/native/platform.ts';
import { fakeBinary } from './support/fake-binary.mjs';

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

it('the release builds every platform, tries each on itself, and publishes after both', () => {
  const { jobs } = parse(readFileSync(join(root, '.github/workflows/release.yml'), 'utf8'));
  const built = jobs.build.strategy.matrix.include.map(({ platform, rust }) => ({ triple: platform, rust }));
  expect(built).toEqual(targets.map(({ triple, rust }) => ({ triple, rust })));
  const tried = new Set(jobs.try.strategy.matrix.include.map(({ platform }) => platform));
  expect([...tried]).toEqual(targets.map(({ triple }) => triple));
  expect(jobs.try.needs).toBe('build');
  expect(jobs.publish.needs).toContain('try');
  const commands = jobs.publish.steps.flatMap(({ run }) => run ?? []);
  const at = (script) => commands.findIndex((command) => command.includes(script));
  expect(at('release-gate.mjs')).toBeGreaterThan(at('stage-packages.mjs'));
  expect(at('publish-packages.mjs')).toBeGreaterThan(at('release-gate.mjs'));
});

it('a binary is built with CUDA where its package must hold it, for the oldest glibc that is promised', () => {
  for (const target of targets) {
    const command = buildCommand(target).join(' ');
    expect(command.includes('--features cuda'), target.triple).toBe(target.cuda);
    const rust = target.glibc === undefined ? target.rust : `${target.rust}.2.28`;
    expect(command.endsWith(`--target ${rust}`), command).toBe(true);
  }
  expect(targets.filter(({ cuda }) => cuda).map(({ triple }) => triple)).toEqual([
    'linux-x64-gnu',
    'linux-arm64-gnu',
  ]);
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

describe('the release gate', () => {
  let whole;
  beforeAll(async () => {
    whole = mkdtempSync(join(tmpdir(), 'candlewick-whole-'));
    mkdirSync(join(whole, 'binaries'));
    for (const target of targets)
      writeFileSync(join(whole, 'binaries', binaryName(target)), fakeBinary(target));
    await stagePackages(join(whole, 'binaries'), join(whole, 'staged'));
  });
  afterAll(() => {
    rmSync(whole, { recursive: true, force: true });
  });

  /** A release of which some binaries are not as they should be. */
  function release(wrong = {}) {
    const staged = join(folder, 'staged');
    // The gate looks at manifests and binaries alone.
    const code = join(whole, 'staged/candlewick/dist');
    cpSync(join(whole, 'staged'), staged, { recursive: true, filter: (path) => path !== code });
    for (const target of targets.filter(({ triple }) => triple in wrong)) {
      const file = join(staged, `candlewick-${target.triple}`, binaryName(target));
      writeFileSync(file, fakeBinary(target, wrong[target.triple]));
    }
    return staged;
  }

  it('lets a whole release through', () => {
    expect(gate(release())).toEqual([]);
  });

  it.each(targets.map(({ triple }) => triple))('holds back a release without %s', (triple) => {
    const staged = release();
    rmSync(join(staged, `candlewick-${triple}`), { recursive: true });
    expect(gate(staged)).toEqual([`candlewick-${triple}: the package is missing`]);
  });

  it('holds back what was staged without a binary, and says that nobody would get it', async () => {
    rmSync(join(whole, 'binaries/candlewick.darwin-x64.node'));
    await stagePackages(join(whole, 'binaries'), join(folder, 'partial'));
    expect(gate(join(folder, 'partial'))).toEqual([
      'candlewick-darwin-x64: the package is missing',
      `candlewick: candlewick-darwin-x64 ${manifest.version} is not among its optional dependencies`,
    ]);
  });

  describe.each(targets.filter(({ cuda }) => cuda).map(({ triple }) => triple))('with %s', (triple) => {
    it('holds back one without CUDA inside', () => {
      expect(gate(release({ [triple]: { architectures: [] } }))).toEqual([
        `candlewick-${triple}: the binary has no CUDA inside`,
      ]);
    });

    it.each([
      ['sm_80', ['sm_90a']],
      ['sm_90a', ['sm_80']],
    ])('holds back one without %s', (missing, architectures) => {
      expect(gate(release({ [triple]: { architectures } }))).toEqual([
        `candlewick-${triple}: there is no machine code for ${missing}`,
      ]);
    });

    it('holds back one whose PTX older drivers refuse', () => {
      expect(gate(release({ [triple]: { ptx: '9.1 sm_80' } }))).toEqual([
        `candlewick-${triple}: PTX (version, target) is 9.1 sm_80, and has to be 9.0 sm_80`,
      ]);
    });
  });

  it('holds back a binary for another processor, and one that wants a newer glibc', () => {
    const staged = release({
      'linux-arm64-gnu': { machine: 'x64' },
      'linux-x64-gnu': { glibc: '2.34' },
      'linux-x64-musl': { glibc: '2.2.5' },
      'darwin-arm64': { machine: 'x64' },
      'win32-x64-msvc': { machine: 'arm64' },
    });
    expect(gate(staged)).toEqual([
      'candlewick-linux-x64-gnu: the binary wants glibc 2.34, and 2.28 at most is allowed',
      'candlewick-linux-arm64-gnu: the binary is for x64',
      'candlewick-linux-x64-musl: the binary wants glibc 2.2.5',
      'candlewick-darwin-arm64: the binary is not one for darwin on arm64',
      'candlewick-win32-x64-msvc: the binary is not one for win32 on x64',
    ]);
  });

  it('holds back what is of another version, and a package whose binary is gone', () => {
    const staged = release();
    const file = join(staged, 'candlewick-darwin-x64/package.json');
    writeFileSync(file, JSON.stringify({ ...json(file), version: '0.0.1' }));
    rmSync(join(staged, 'candlewick-linux-x64-musl', 'candlewick.linux-x64-musl.node'));
    expect(gate(staged)).toEqual([
      'candlewick-linux-x64-musl: candlewick.linux-x64-musl.node is missing',
      `candlewick-darwin-x64: version 0.0.1, and this is ${manifest.version}`,
    ]);
  });

  const built = join(root, 'dist/native/candlewick.linux-x64-gnu.node');
  it.runIf(existsSync(built))('sees that the binary of this checkout has no CUDA inside', () => {
    const staged = release();
    copyFileSync(built, join(staged, 'candlewick-linux-x64-gnu/candlewick.linux-x64-gnu.node'));
    expect(gate(staged)).toContain('candlewick-linux-x64-gnu: the binary has no CUDA inside');
  });
});
