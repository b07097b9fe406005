/** Which native binary is loaded, and what is said where there is none. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { CandlewickError } from '../src/errors.js';
import { findBinary } from '../src/native/binary.js';
import { explainLoadFailure } from '../src/native/load-failure.js';
import { cLibraryOf, packageOf, platformsWithPackage, platformTriple } from '../src/native/platform.js';

const triple = 'linux-arm64-gnu';
const name = `candlewick.${triple}.node`;

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-binary-'));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

async function write(path: string, text: string): Promise<string> {
  await mkdir(join(root, path, '..'), { recursive: true });
  await writeFile(join(root, path), text);
  return join(root, path);
}

/** A project with candlewick 1.2.3 installed; the URL of a module of it. */
async function installed(project: string): Promise<string> {
  await write(`${project}/node_modules/candlewick/package.json`, '{"version":"1.2.3"}');
  return pathToFileURL(await write(`${project}/node_modules/candlewick/dist/native/binary.js`, '')).href;
}

const platformPackage = async (project: string, version: string) =>
  write(`${project}/node_modules/${packageOf(triple)}/package.json`, JSON.stringify({ version }));

const look = (from: string) => () => findBinary(from, triple);

function refusal(find: () => unknown): CandlewickError {
  try {
    find();
  } catch (error) {
    if (error instanceof CandlewickError) return error;
    throw error;
  }
  throw new Error('a binary was found');
}

describe('the binary', () => {
  it("is that of the platform's package", async () => {
    const from = await installed('whole');
    await platformPackage('whole', '1.2.3');
    const file = await write(`whole/node_modules/${packageOf(triple)}/${name}`, 'binary');
    expect(findBinary(from, triple)).toEqual({
      file,
      triple,
      package: 'candlewick-linux-arm64-gnu@1.2.3',
      why: 'from candlewick-linux-arm64-gnu',
    });
  });

  it('that was built here comes before that of a package', async () => {
    const from = await installed('built');
    await platformPackage('built', '1.2.3');
    await write(`built/node_modules/${packageOf(triple)}/${name}`, 'binary');
    const file = await write(`built/node_modules/candlewick/dist/native/${name}`, 'binary');
    expect(findBinary(from, triple)).toEqual({ file, triple, package: null, why: 'built here' });
  });

  it('that the environment names comes first', async () => {
    const from = await installed('named');
    await write(`named/node_modules/candlewick/dist/native/${name}`, 'binary');
    vi.stubEnv('CANDLEWICK_NATIVE', '/elsewhere/candlewick.node');
    expect(findBinary(from, triple)).toMatchObject({
      file: '/elsewhere/candlewick.node',
      why: 'named by CANDLEWICK_NATIVE',
    });
    vi.unstubAllEnvs();
  });

  it('is missing: the package to install is named, with its version', async () => {
    const { code, message, hint } = refusal(look(await installed('bare')));
    expect(code).toBe('NATIVE_NOT_FOUND');
    expect(message).toBe('this installation has no native binary for linux-arm64-gnu');
    expect(hint).toMatch(/^npm install candlewick-linux-arm64-gnu@1\.2\.3 \(.*--omit=optional/);
  });

  it('of another version is not loaded', async () => {
    const from = await installed('older');
    await platformPackage('older', '1.2.2');
    const { code, message, hint } = refusal(look(from));
    expect(code).toBe('NATIVE_NOT_FOUND');
    expect(message).toBe('candlewick-linux-arm64-gnu is version 1.2.2, and candlewick is 1.2.3');
    expect(hint).toMatch(/^npm install candlewick-linux-arm64-gnu@1\.2\.3/);
  });

  it('whose file is gone is named with the package to install again', async () => {
    const from = await installed('hollow');
    await platformPackage('hollow', '1.2.3');
    expect(refusal(look(from)).hint).toBe(
      'install it again: npm install --force candlewick-linux-arm64-gnu@1.2.3',
    );
  });

  it('for a platform without a package: the platforms are listed', async () => {
    const from = await installed('odd');
    const { message, hint } = refusal(() => findBinary(from, 'linux-riscv64-gnu'));
    expect(message).toBe('there is no native binary for linux-riscv64-gnu');
    for (const platform of platformsWithPackage) expect(hint).toContain(platform);
    expect(hint).toContain('npm run build');
  });

  it('that does not load: one of a package is installed again, one of a checkout is built', () => {
    const said = '/x/candlewick.node: invalid ELF header';
    const hint = (package_: string | null) => explainLoadFailure(said, { triple, package: package_ }).hint;
    expect(hint(`${packageOf(triple)}@1.2.3`)).toMatch(
      /npm install --force candlewick-linux-arm64-gnu@1\.2\.3/,
    );
    expect(hint(null)).toMatch(/npm run build/);
  });
});

describe('the platform', () => {
  it("is read off the program's own loader", async () => {
    const elf = (loader: string) => `\x7fELF${'\0'.repeat(700)}${loader}\0`;
    expect(cLibraryOf(await write('musl', elf('/lib/ld-musl-x86_64.so.1')))).toBe('musl');
    expect(cLibraryOf(await write('gnu', elf('/lib64/ld-linux-x86-64.so.2')))).toBe('gnu');
    expect(cLibraryOf(join(root, 'not there'))).toBe('gnu');
  });

  it.runIf(process.platform === 'linux')('is what Node says of itself', () => {
    const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
    const library = header.glibcVersionRuntime === undefined ? 'musl' : 'gnu';
    expect(platformTriple()).toBe(`linux-${process.arch}-${library}`);
  });
});
