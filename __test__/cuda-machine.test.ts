/** What is said of machines with and without CUDA. The driver and the libraries are fakes that a child process loads. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CudaReport } from '../src/cuda/index.js';
import { platformTriple } from '../src/native/platform.js';
import { fakeDriver, fakeLibrary, fakeToolkit, functionsOf, h100 } from './support/fake-cuda.js';
import { repository } from './support/python.js';

let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'candlewick-cuda-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** The one without CUDA: one with it would also try its kernels, which no fake runs. */
const binding = join(repository, 'dist/native', `candlewick.${platformTriple()}.node`);

const program = `
  import { lookAtCuda } from './src/cuda/index.ts';
  process.stdout.write(JSON.stringify(await lookAtCuda()));
`;

/** What a process of its own sees that has these variables and no others of CUDA's. */
async function look(env: Record<string, string> = {}): Promise<CudaReport> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', './scripts/typescript.mjs', '--input-type=module', '--eval', program],
    { cwd: repository, env: { PATH: process.env['PATH'], CANDLEWICK_NATIVE: binding, ...env } },
  );
  return JSON.parse(stdout) as CudaReport;
}

const at = (...parts: string[]) => join(root, ...parts);

describe.skipIf(process.platform !== 'linux')('a machine', () => {
  it('without a driver says where it was looked for', async () => {
    const { driver, gpus, trouble } = await look();
    expect(driver).toBeNull();
    expect(gpus).toEqual([]);
    expect(trouble?.code).toBe('CUDA_UNAVAILABLE');
    expect(trouble?.message).toMatch(/libcuda\.so\.1/);
    expect(trouble?.hint).toMatch(/looked in LD_LIBRARY_PATH.*--device cpu/);
  });

  it('with a driver, a GPU and a toolkit has no trouble', async () => {
    fakeDriver(at('good', 'libcuda.so.1'), { gpus: [h100, { ...h100, name: 'NVIDIA B200' }] });
    fakeToolkit(at('toolkit', 'lib64'));
    const report = await look({ LD_LIBRARY_PATH: at('good'), CUDA_HOME: at('toolkit') });
    expect(report.trouble).toBeNull();
    expect(report.wheels).toEqual([]);
    expect(report.driver).toMatchObject({ path: 'libcuda.so.1', cuda: '13.0' });
    expect(report.gpus).toEqual([h100, { ...h100, name: 'NVIDIA B200' }]);
    expect(report.libraries.map(({ path }) => path)).toEqual(
      ['libcublasLt.so.13', 'libcublas.so.13', 'libcurand.so.10'].map((name) => at('toolkit/lib64', name)),
    );
  });

  it('takes CUDA_HOME, then the wheels of the environment, then the system', async () => {
    fakeDriver(at('order', 'libcuda.so.1'), {});
    fakeLibrary(at('order/home/lib64/libcurand.so.10'), 'curand');
    const wheels = at('order/venv/lib/python3.12/site-packages/nvidia/cu13/lib');
    fakeLibrary(join(wheels, 'libcurand.so.10'), 'curand');
    fakeLibrary(join(wheels, 'libcublasLt.so.13'), 'cublasLt');
    fakeToolkit(at('order'));
    const { libraries, trouble } = await look({
      LD_LIBRARY_PATH: at('order'),
      CUDA_HOME: at('order/home'),
      VIRTUAL_ENV: at('order/venv'),
    });
    expect(trouble).toBeNull();
    expect(libraries).toEqual([
      { name: 'libcublasLt.so.13', path: join(wheels, 'libcublasLt.so.13') },
      { name: 'libcublas.so.13', path: 'libcublas.so.13' },
      { name: 'libcurand.so.10', path: at('order/home/lib64/libcurand.so.10') },
    ]);
  });

  it("never takes a toolkit's stub for the driver", async () => {
    fakeDriver(at('stub/lib64/libcuda.so.1'), {});
    fakeDriver(at('stub/lib64/stubs/libcuda.so.1'), {});
    expect((await look({ CUDA_HOME: at('stub') })).driver).toBeNull();
  });

  it('with too old a driver says both versions, and still names the GPU', async () => {
    fakeDriver(at('old', 'libcuda.so.1'), { cuda: 12_040, without: ['cuCtxCreate_v4'] });
    const { trouble, gpus } = await look({ LD_LIBRARY_PATH: at('old') });
    expect(trouble?.code).toBe('CUDA_DRIVER_TOO_OLD');
    expect(trouble?.message).toMatch(/knows CUDA up to 12\.4, and candlewick needs 13\.0/);
    expect(trouble?.hint).toMatch(/driver 580\.65 or newer/);
    expect(gpus[0]?.name).toBe(h100.name);
  });

  it('names a library that is missing, what stands in its place, and the wheel that brings it', async () => {
    fakeDriver(at('bare', 'libcuda.so.1'), {});
    fakeLibrary(at('bare/home/lib64/libcublasLt.so.12'), 'cublasLt');
    const { trouble, wheels } = await look({ LD_LIBRARY_PATH: at('bare'), CUDA_HOME: at('bare/home') });
    expect(wheels).toEqual(['nvidia-cublas>=13,<14', 'nvidia-curand>=10.4,<11']);
    expect(trouble).toMatchObject({ code: 'CUDA_UNAVAILABLE' });
    expect(trouble?.message).toContain('libcublasLt.so.13 was not found');
    expect(trouble?.message).toContain(`${at('bare/home/lib64/libcublasLt.so.12')} is of another version`);
    expect(trouble?.hint).toContain("pip install 'nvidia-cublas>=13,<14'");
  });

  it('says what the loader says of a library that does not open', async () => {
    fakeDriver(at('broken', 'libcuda.so.1'), {});
    fakeToolkit(at('broken/home/lib64'));
    writeFileSync(at('broken/home/lib64/libcurand.so.10'), 'not a library');
    const { trouble } = await look({ LD_LIBRARY_PATH: at('broken'), CUDA_HOME: at('broken/home') });
    expect(trouble?.message).toMatch(
      /libcurand\.so\.10 does not open: .*(invalid ELF header|file too short)/,
    );
    expect(trouble?.hint).toContain('nvidia-curand');
  });

  it('names a function that a library lacks', async () => {
    fakeDriver(at('lacking', 'libcuda.so.1'), {});
    fakeToolkit(at('lacking/home/lib64'));
    const [gone = ''] = functionsOf('cublas');
    fakeLibrary(at('lacking/home/lib64/libcublas.so.13'), 'cublas', { without: [gone] });
    const { trouble } = await look({ LD_LIBRARY_PATH: at('lacking'), CUDA_HOME: at('lacking/home') });
    expect(trouble?.code).toBe('CUDA_UNAVAILABLE');
    expect(trouble?.message).toBe(`${at('lacking/home/lib64/libcublas.so.13')} has no function ${gone}`);
    const driver = await (async () => {
      fakeDriver(at('lacking', 'libcuda.so.1'), { without: ['cuInit', 'cuMemGetInfo_v2'] });
      return look({ LD_LIBRARY_PATH: at('lacking') });
    })();
    expect(driver.trouble?.message).toBe('libcuda.so.1 has no function cuInit and 1 more');
  });

  it.each([
    [100, /no GPU/, /CUDA_VISIBLE_DEVICES is set/],
    [802, /not ready/, /fabric manager/],
    [803, /kernel module differ/, /restart/],
    [804, /forward compatibility/, /compat folder/],
    [7777, /code 7777/, /restart the driver/],
  ])('whose driver fails with %i says what to do', async (code, message, hint) => {
    fakeDriver(at(`fails-${code}`, 'libcuda.so.1'), { init: code });
    const env = { LD_LIBRARY_PATH: at(`fails-${code}`), CUDA_VISIBLE_DEVICES: '0' };
    const { trouble } = await look(env);
    expect(trouble).toMatchObject({ code: 'CUDA_UNAVAILABLE' });
    expect(trouble?.message).toMatch(message);
    expect(trouble?.hint).toMatch(hint);
  });

  it('with a GPU that is too old, or none, says so', async () => {
    fakeToolkit(at('turing/home/lib64'));
    const env = { LD_LIBRARY_PATH: at('turing'), CUDA_HOME: at('turing/home') };
    fakeDriver(at('turing/libcuda.so.1'), { gpus: [{ ...h100, name: 'Tesla T4', capability: [7, 5] }] });
    expect((await look(env)).trouble?.message).toBe(
      "Tesla T4 has compute capability 7.5, and candlewick's kernels need 8.0",
    );
    fakeDriver(at('turing/libcuda.so.1'), { gpus: [] });
    expect((await look(env)).trouble?.message).toMatch(/no GPU/);
  });
});
