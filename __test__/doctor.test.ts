/** `candlewick doctor` on machines that lack something. */
import { spawnSync } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CudaReport } from '../src/cuda/index.js';
import { diagnose } from '../src/doctor/index.js';
import type { Check, DoctorOptions } from '../src/doctor/index.js';
import { checkDisk } from '../src/doctor/disk.js';
import { checkHub } from '../src/doctor/hub.js';
import { checkGpu, checkMemory, checkOpenFiles, checkProcessor } from '../src/doctor/machine.js';
import { checkBinding, checkNode } from '../src/doctor/program.js';
import { checkPython } from '../src/doctor/python.js';
import { errorFor } from '../src/errors.js';
import { explainLoadFailure } from '../src/native/load-failure.js';
import { platformTriple } from '../src/native/platform.js';
import { h100 } from './support/fake-cuda.js';
import { LocalHub } from './support/hub.js';
import { copyWithoutBinary } from './support/package-copy.js';
import { isBuilt, startIn } from './support/program.js';

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-doctor-'));
});
afterAll(async () => {
  await rm(root, { recursive: true, force: true });
});

/** A program of the tests' own. */
async function program(path: string, body: string): Promise<string> {
  const file = join(root, path);
  await mkdir(join(file, '..'), { recursive: true });
  await writeFile(file, `#!/bin/sh\n${body}\n`);
  await chmod(file, 0o755);
  return file;
}

/** A /proc and /sys with these files. */
async function machine(name: string, files: Record<string, string>): Promise<string> {
  const at = join(root, name);
  for (const [path, text] of Object.entries(files)) {
    await mkdir(join(at, path, '..'), { recursive: true });
    await writeFile(join(at, path), text);
  }
  return `${at}/`;
}

const failing = (check: Check | undefined) => {
  expect(check?.status, JSON.stringify(check)).toBe('fail');
  expect(check?.cure).toBeTruthy();
  return check as Check;
};

describe('node and the binding', () => {
  it('an old Node fails with the version that is needed', () => {
    expect(checkNode().status).toBe('ok');
    const old = failing(checkNode('18.20.4'));
    expect(old.detail).toContain('20.17');
    expect(old.cure).toContain('https://nodejs.org');
  });

  it('a binding of another version, and one that does not load, fail with a cure', () => {
    const other = failing(checkBinding({ loadBinding: () => '0.0.1' }));
    expect(other.detail).toContain('version 0.0.1');
    const broken = checkBinding({
      loadBinding: () => {
        throw errorFor('NATIVE_NOT_FOUND', 'this installation has no native binary', 'npm run build');
      },
    });
    expect(failing(broken)).toMatchObject({
      detail: 'this installation has no native binary',
      cure: 'npm run build',
    });
    const odd = checkBinding({
      loadBinding: () => {
        throw new Error('something else');
      },
    });
    expect(failing(odd).detail).toContain('something else');
  });

  it.each([
    [
      "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found (required by /x/candlewick.node)",
      /needs GLIBC_2\.34, and this system is older/,
      /newer system or container image/,
    ],
    [
      '/x/candlewick.node: wrong ELF class: ELFCLASS32',
      /another processor/,
      /npm install --force candlewick-linux-x64-gnu/,
    ],
    [
      '/x/candlewick.node: file too short',
      /does not load: .*file too short/,
      /npm install --force candlewick-linux-x64-gnu/,
    ],
    [
      '/x/candlewick.node: invalid ELF header',
      /damaged or made for another processor/,
      /npm install --force/,
    ],
    [
      'libgcc_s.so.1: cannot open shared object file: No such file or directory',
      /needs libgcc_s\.so\.1, which this system does not have/,
      /install the package that holds libgcc_s/,
    ],
  ])('%s', (said, message, hint) => {
    const explained = explainLoadFailure(said, {
      triple: 'linux-x64-gnu',
      package: 'candlewick-linux-x64-gnu',
    });
    expect(explained.message).toMatch(message);
    expect(explained.hint).toMatch(hint);
  });
});

describe('the machine', () => {
  it('memory is what the container allows, its file cache not counted', async () => {
    const at = await machine('container', {
      'proc/meminfo': 'MemTotal:       64000000 kB\nMemAvailable:   60000000 kB\n',
      'proc/self/cgroup': '0::/inner\n',
      'sys/fs/cgroup/memory.max': '4000000000',
      'sys/fs/cgroup/memory.current': '3800000000',
      'sys/fs/cgroup/memory.stat': 'anon 1\ninactive_file 300000000\n',
    });
    const little = checkMemory({ root: at });
    expect(little).toMatchObject({
      status: 'warn',
      detail: '500 MB free of 4.00 GB (limit of the container)',
    });
    const full = await machine('full', {
      'proc/meminfo': 'MemTotal:       8000000 kB\nMemAvailable:   100000 kB\n',
    });
    expect(failing(checkMemory({ root: full })).detail).toBe('102 MB free of 8.19 GB');
    const roomy = await machine('roomy', {
      'proc/meminfo': 'MemTotal:       64000000 kB\nMemAvailable:   60000000 kB\n',
      'proc/self/cgroup': '5:memory:/job\n',
      'sys/fs/cgroup/memory/job/memory.limit_in_bytes': '9223372036854771712',
    });
    expect(checkMemory({ root: roomy })).toMatchObject({ status: 'ok', detail: '61.4 GB free of 65.5 GB' });
  });

  it('few open files are told, and processors without wide registers', async () => {
    const at = await machine('small', {
      'proc/self/limits': 'Max open files            256                  256                  files\n',
      'proc/cpuinfo': 'model name : Old\nflags : fpu sse sse2\nFeatures : fp\n',
    });
    expect(checkOpenFiles({ root: at })).toMatchObject({
      status: 'warn',
      detail: 'at most 256',
      cure: expect.stringContaining('ulimit -n') as string,
    });
    const processor = checkProcessor({ root: at });
    if (process.arch === 'x64') expect(processor).toMatchObject({ status: 'warn' });
    expect(processor.detail).toContain('none of');
  });

  it('a GPU is named with its driver, and what keeps training from it', async () => {
    const report = {
      built: true,
      driver: { path: 'libcuda.so.1', cuda: '13.0', version: '580.82.07' },
      gpus: [h100],
      libraries: [],
      wheels: [],
      trouble: null,
    };
    const gpu = (change: Partial<CudaReport>) => checkGpu({ look: async () => ({ ...report, ...change }) });
    const found =
      'NVIDIA H100 80GB HBM3, 84.0 GB free of 85.5 GB, compute capability 9.0; driver 580.82.07 (CUDA 13.0)';
    expect(await gpu({})).toEqual({ name: 'gpu', status: 'ok', detail: found, cure: null });
    expect(await gpu({ built: false })).toMatchObject({
      status: 'warn',
      detail: `${found}; training on the CPU: this build of candlewick has no CUDA`,
      cure: expect.stringContaining('npm run build:cuda') as string,
    });
    const trouble = { code: 'CUDA_UNAVAILABLE', message: 'a library is missing', hint: 'install it' };
    expect(await gpu({ trouble, built: false })).toMatchObject({
      status: 'warn',
      detail: `${found}; training on the CPU: a library is missing`,
      cure: 'install it',
    });
    expect(await gpu({ driver: null, gpus: [], trouble })).toMatchObject({
      status: 'ok',
      detail: 'a library is missing; training on the CPU',
    });
    const unloadable = checkGpu({ look: () => Promise.reject(new Error('damaged')) });
    expect(await unloadable).toMatchObject({ status: 'ok' });
  });
});

describe('Python', () => {
  /** A Python that says what the check asks it for. */
  const pretend = (name: string, found: object, version = '3.11.7') =>
    program(
      `${name}/python`,
      `case "$2" in *importlib*) printf '%s' '${JSON.stringify(found)}';; *) printf 'python ${version}';; esac`,
    );
  const versions = {
    datasets: { version: '5.2.0' },
    pyarrow: { version: '26.0.1' },
    huggingface_hub: { version: '2.4.0' },
    'google-crc32c': { version: '1.9.0' },
    zstandard: { version: '0.25.0' },
  };

  it('that is missing or too old is one failing line', async () => {
    const [missing, ...more] = await checkPython({ python: join(root, 'nothing') });
    expect(failing(missing).detail).toContain('does not start as a Python');
    expect(more).toEqual([]);
    const [old] = await checkPython({ python: await pretend('stale', {}, '3.8.1') });
    expect(failing(old).detail).toContain('is Python 3.8.1');
  });

  it('tells its imports: as pinned, others that will do, too old, missing', async () => {
    const imports = async (name: string, found: object) =>
      (await checkPython({ python: await pretend(name, found) }))[1] as Check;
    expect(await imports('pinned', versions)).toMatchObject({
      status: 'ok',
      detail: expect.stringContaining('datasets 5.2.0, pyarrow 26.0.1') as string,
    });
    expect(await imports('others', { ...versions, pyarrow: { version: '20.0.0' } })).toMatchObject({
      status: 'warn',
      detail: expect.stringContaining('tested with pyarrow 26.0.1') as string,
    });
    const old = failing(await imports('too-old', { ...versions, datasets: { version: '2.19.0' } }));
    expect(old.detail).toContain('older than what the streamer works with (datasets 4.0.0)');
    const without = failing(
      await imports('without', {
        ...versions,
        zstandard: { error: 'ModuleNotFoundError: No module named zstandard' },
      }),
    );
    expect(without.detail).toBe('zstandard: ModuleNotFoundError: No module named zstandard');
    expect(without.cure).toContain('candlewick setup');
    const mute = await program(
      'mute/python',
      `case "$2" in *importlib*) echo no space >&2; exit 3;; *) printf 'python 3.12.1';; esac`,
    );
    expect(failing((await checkPython({ python: mute }))[1]).detail).toContain('no space');
  });
});

describe('the hub', () => {
  let hub: LocalHub;
  beforeAll(async () => {
    hub = await LocalHub.start({});
    hub.users.set('hf_good', 'ada');
  });
  afterAll(() => hub.close());
  const look = (env: NodeJS.ProcessEnv, hubTimeout = 5_000) =>
    checkHub({ env: { HF_ENDPOINT: hub.url, HF_HOME: join(root, 'nobody'), ...env }, hubTimeout });

  it('that answers is good without a token, and with one that it knows', async () => {
    expect(await look({})).toMatchObject([
      { name: 'hub', status: 'ok', detail: `${hub.url} answers; no token, so only public data can be read` },
      { name: 'clock', status: 'ok' },
    ]);
    expect((await look({ HF_TOKEN: 'hf_good' }))[0]).toMatchObject({
      status: 'ok',
      detail: `${hub.url} answers; HF_TOKEN is good (ada)`,
    });
    await mkdir(join(root, 'home'), { recursive: true });
    await writeFile(join(root, 'home', 'token'), 'hf_good\n');
    expect((await look({ HF_HOME: join(root, 'home') }))[0]?.detail).toContain('token is good (ada)');
  });

  it('that refuses a token, that is down, and that is not there are told apart; no token is printed', async () => {
    const refused = failing((await look({ HF_TOKEN: 'hf_secret' }))[0]);
    expect(refused.detail).toContain('refuses the token of HF_TOKEN (401)');
    expect(JSON.stringify(refused)).not.toContain('hf_secret');

    hub.script = () => ({ status: 503 });
    expect(failing((await look({}))[0]).detail).toContain('answers 503');
    hub.script = null;

    const gone = await LocalHub.start({});
    await gone.close();
    const offline = failing((await look({ HF_ENDPOINT: gone.url }))[0]);
    expect(offline.detail).toBe(`${gone.url} cannot be reached: ECONNREFUSED`);
    expect(offline.cure).toContain('HF_HUB_OFFLINE=1');
    expect((await look({ HF_ENDPOINT: gone.url, HTTPS_PROXY: 'http://proxy' }))[0]).toMatchObject({
      status: 'warn',
      detail: expect.stringContaining('HTTPS_PROXY') as string,
    });
    expect(await look({ HF_ENDPOINT: gone.url, HF_HUB_OFFLINE: '1' })).toMatchObject([{ status: 'ok' }]);
  });

  it('that accepts and says nothing is given up after the time it has', async () => {
    const silent: Server = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const [found] = await look({ HF_ENDPOINT: url }, 200);
    silent.close();
    expect(failing(found).detail).toBe(`${url} cannot be reached: no answer within 0.2 s`);
  });

  it('tells the clock', async () => {
    hub.script = () => ({ status: 401, headers: { Date: new Date(Date.now() - 3_600_000).toUTCString() } });
    const [, clock] = await look({});
    hub.script = null;
    const found = failing(clock);
    expect(found.detail).toMatch(/^360\d s ahead of the hub's$/);
  });
});

describe('the disk', () => {
  it('is written to where the run would be, and left as it was', async () => {
    const place = join(root, 'disk');
    await mkdir(place);
    const found = await checkDisk({ output: join(place, 'runs', 'new') });
    expect(found.detail).toMatch(new RegExp(`^${place}: .* free, writes .* a second$`));
    expect(await readdir(place)).toEqual([]);
  });

  it('that cannot be written fails', async () => {
    await writeFile(join(root, 'file'), '');
    expect(failing(await checkDisk({ output: join(root, 'file') })).detail).toContain('cannot write');
    expect(failing(await checkDisk({ output: '/proc/nowhere' })).detail).toContain('cannot write /proc');
  });
});

/** A small disk that a test may fill; null where nobody may mount one. */
async function smallDisk(name: string): Promise<string | null> {
  const at = join(root, name);
  await mkdir(at);
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', at]).status === 0;
  return mounted ? at : null;
}

describe('a small disk', () => {
  let at: string | null = null;
  beforeAll(async () => {
    at = await smallDisk('tmpfs');
  });
  afterAll(() => {
    if (at !== null) spawnSync('umount', [at]);
  });

  it('fails with what is free, and when it is full', async (context) => {
    if (at === null) return context.skip('nothing can be mounted here');
    expect(failing(await checkDisk({ output: at })).detail).toMatch(/: 4\.19 MB free, writes/);
    // Every page: a partly filled one would let the probe's directory be made.
    await writeFile(join(at, 'all'), Buffer.alloc(4 << 20)).catch(() => undefined);
    expect(failing(await checkDisk({ output: at }))).toMatchObject({
      detail: `${at} is full`,
      cure: expect.stringContaining('free some space') as string,
    });
  });
});

describe('the command', () => {
  it('looks at everything, in one order', async () => {
    const options: DoctorOptions = {
      output: join(root, 'runs'),
      python: join(root, 'nothing'),
      env: { PATH: '/nowhere', HF_HUB_OFFLINE: '1' },
      loadBinding: () => {
        throw errorFor('NATIVE_NOT_FOUND', 'none', 'build it');
      },
    };
    const checks: Check[] = [];
    for await (const check of diagnose(options)) checks.push(check);
    expect(checks.map(({ name }) => name)).toEqual([
      'node',
      'binding',
      'processor',
      'memory',
      'open files',
      'gpu',
      'python',
      'hub',
      'disk',
    ]);
    for (const { status, cure } of checks) expect(status === 'ok').toBe(cure === null);
  });

  it.skipIf(!isBuilt)('says that the binary is missing, and that it is damaged', async () => {
    const place = await copyWithoutBinary(join(root, 'package'));
    const doctor = () =>
      spawnSync(process.execPath, [join(place, 'bin', 'candlewick.js'), 'doctor'], {
        cwd: root,
        encoding: 'utf8',
        env: { ...process.env, HF_HUB_OFFLINE: '1' },
      });
    const missing = doctor();
    expect(missing.status, missing.stderr).toBe(3);
    expect(missing.stdout).toMatch(/^FAIL {2}binding {5}this installation has no native binary for /m);
    const file = join(place, 'dist', 'native', `candlewick.${platformTriple()}.node`);
    await writeFile(file, Buffer.alloc(4096, 'no library'));
    const damaged = doctor();
    expect(damaged.status).toBe(3);
    expect(damaged.stdout).toMatch(/^FAIL {2}binding {5}the native binary is damaged or made for another/m);
    expect(damaged.stdout).toMatch(/^ok {4}node /m);
  });

  it.skipIf(!isBuilt)('ends with 0 on this machine, and with 3 without a Python', async () => {
    const env = { HF_HUB_OFFLINE: '1' };
    const good = startIn({ cwd: root, env }, 'candlewick', 'doctor', '--json');
    expect(await good.ended, good.stdout).toBe(0);
    const lines = good.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.at(-1)).toMatchObject({ type: 'done', ok: true, failed: 0 });
    expect(lines.find(({ name }) => name === 'imports')).toMatchObject({ type: 'check' });
    const bad = startIn(
      { cwd: root, env: { ...env, CANDLEWICK_PYTHON: '/nowhere/python' } },
      'candlewick',
      'doctor',
    );
    expect(await bad.ended, bad.stderr).toBe(3);
    expect(bad.stdout).toMatch(/^FAIL {2}python {6}CANDLEWICK_PYTHON names \/nowhere\/python/m);
    expect(bad.stdout).toMatch(/cure: give CANDLEWICK_PYTHON the path/);
    expect(bad.stderr).toContain('1 of 9 checks failed');
  });
});
