/** Libraries of CUDA's names that the tests compile: a driver that describes GPUs, and others that only have their functions. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { repository } from './python.js';

/** What a fake driver says. */
export interface FakeDriver {
  /** 1000 · major + 10 · minor. */
  cuda?: number;
  gpus?: { name: string; capability: [major: number, minor: number]; total: number; free: number }[];
  /** What cuInit gives. */
  init?: number;
  /** Functions that it lacks. */
  without?: string[];
}

/** One GPU that candlewick's kernels run on. */
export const h100 = {
  name: 'NVIDIA H100 80GB HBM3',
  capability: [9, 0] as [number, number],
  total: 85_520_809_984,
  free: 84_000_000_000,
};

/** The functions that a library has to have, as the build lists them. */
export function functionsOf(library: 'driver' | 'cublasLt' | 'cublas' | 'curand'): string[] {
  const list = readFileSync(join(repository, 'crates/cuda/symbols.txt'), 'utf8');
  return list.split('\n').flatMap((line) => {
    const [word, name] = line.split(' ');
    return word === library && name !== undefined ? [name] : [];
  });
}

/** Makes `libcuda.so.1`, or a driver under another name. */
export function fakeDriver(
  file: string,
  { cuda = 13_000, gpus = [h100], init = 0, without = [] }: FakeDriver,
) {
  const bodies: Record<string, string> = {
    cuDriverGetVersion: `(int *v) { *v = ${cuda}; return 0; }`,
    cuInit: `(unsigned f) { return f == 0 ? ${init} : 1; }`,
    cuDeviceGetCount: `(int *n) { *n = ${gpus.length}; return 0; }`,
    cuDeviceGet: '(int *d, int i) { *d = i; return 0; }',
    cuDeviceGetName: `(char *s, int n, int d) { return snprintf(s, n, "%s", gpus[d].name) < 0; }`,
    cuDeviceGetAttribute: `(int *v, int a, int d) {
      *v = a == 75 ? gpus[d].major : a == 76 ? gpus[d].minor : 0; return a != 75 && a != 76; }`,
    cuDeviceTotalMem_v2: '(size_t *n, int d) { *n = gpus[d].total; return 0; }',
    cuDevicePrimaryCtxRetain: '(void **c, int d) { *c = (void *)&gpus[d]; return 0; }',
    cuDevicePrimaryCtxRelease_v2: '(int d) { (void)d; return 0; }',
    cuCtxPushCurrent_v2: '(void *c) { current = c; return 0; }',
    cuCtxPopCurrent_v2: '(void **c) { *c = current; current = 0; return 0; }',
    cuMemGetInfo_v2: `(size_t *f, size_t *t) {
      if (!current) return 201; *f = ((struct gpu *)current)->free; *t = ((struct gpu *)current)->total; return 0; }`,
  };
  const table = gpus.map(
    ({ name, capability, total, free }) =>
      `{ ${JSON.stringify(name)}, ${capability.join(', ')}, ${total}ul, ${free}ul }`,
  );
  const functions = new Set([...Object.keys(bodies), ...functionsOf('driver')]);
  const defined = [...functions]
    .filter((name) => !without.includes(name))
    .map((name) => `int ${name}${bodies[name] ?? '(void) { return 1; }'}`);
  compile(
    file,
    `#include <stddef.h>
     #include <stdio.h>
     struct gpu { const char *name; int major, minor; size_t total, free; };
     static struct gpu gpus[] = { ${[...table, '{ 0, 0, 0, 0, 0 }'].join(', ')} };
     static void *current;
     ${defined.join('\n')}`,
  );
}

/** Makes one of the other libraries. */
export function fakeLibrary(
  file: string,
  library: 'cublasLt' | 'cublas' | 'curand',
  { without = [] as string[] } = {},
) {
  const names = functionsOf(library).filter((name) => !without.includes(name));
  compile(file, ['int nothing_else;', ...names.map((name) => `int ${name}(void) { return 1; }`)].join('\n'));
}

/** Makes the libraries of a toolkit, in a folder. */
export function fakeToolkit(folder: string) {
  fakeLibrary(join(folder, 'libcublasLt.so.13'), 'cublasLt');
  fakeLibrary(join(folder, 'libcublas.so.13'), 'cublas');
  fakeLibrary(join(folder, 'libcurand.so.10'), 'curand');
}

function compile(file: string, source: string) {
  mkdirSync(dirname(file), { recursive: true });
  const { status, stderr } = spawnSync(
    process.env['CC'] ?? 'cc',
    ['-shared', '-fPIC', '-w', '-x', 'c', '-', '-o', file],
    { input: source, encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`${file}: ${stderr}`);
}

/**
 * Makes a whole CUDA in a folder whose GPU is this processor: the driver runs candlewick's own kernels, compiled for the
 * host, and cuBLASLt multiplies in loops. A program that finds it trains as on a GPU, only slower. What candle itself would
 * launch is not there.
 */
export function emulatedCuda(folder: string) {
  const kernels = join(repository, 'crates/cuda/kernels');
  const emulation = join(kernels, 'emulation');
  const sources = readdirSync(kernels).filter((name) => name.endsWith('.cu'));
  const driver = join(emulation, 'driver.cpp');
  compileCpp(join(folder, 'libcuda.so.1'), 'driver', driver, [
    ...sources.map((name) => join(kernels, name)),
    ...['block.cpp', 'shadow.cpp', 'mma.cpp'].map((name) => join(emulation, name)),
    driver,
  ]);
  const products = join(emulation, 'cublaslt.cpp');
  compileCpp(join(folder, 'libcublasLt.so.13'), 'cublasLt', products, [products]);
  // candle makes a handle of each and uses neither in training.
  for (const [file, library] of [
    ['libcublas.so.13', 'cublas'],
    ['libcurand.so.10', 'curand'],
  ] as const) {
    compile(
      join(folder, file),
      functionsOf(library)
        .map((name) =>
          /Create/.test(name)
            ? `int ${name}(void **p) { static int one; *p = &one; return 0; }`
            : `int ${name}(void) { return 0; }`,
        )
        .join('\n'),
    );
  }
}

/** A library from sources of the emulation; what `main` does not define of a library's functions gives an error. */
function compileCpp(file: string, library: 'driver' | 'cublasLt', main: string, sources: string[]) {
  mkdirSync(dirname(file), { recursive: true });
  const text = readFileSync(main, 'utf8');
  const missing = functionsOf(library).filter((name) => !new RegExp(`\\b${name}\\(`).test(text));
  const rest = `${file}.rest.cpp`;
  writeFileSync(rest, missing.map((name) => `extern "C" int ${name}() { return 801; }\n`).join(''));
  const flags = ['-std=c++17', '-O2', '-w', '-shared', '-fPIC', '-fno-strict-aliasing', '-ffp-contract=off'];
  const headers = ['-I', join(repository, 'crates/cuda/kernels/emulation')];
  const { status, stderr } = spawnSync(
    process.env['CXX'] ?? 'c++',
    [...flags, ...headers, '-x', 'c++', ...sources, rest, '-o', file],
    { encoding: 'utf8' },
  );
  if (status !== 0) throw new Error(`${file}: ${stderr}`);
}
