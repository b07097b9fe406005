/**
 * What each kernel takes of a GPU, as ptxas says: registers, local memory, spills. Ends with 1 where a kernel has any
 * local memory, which lies in the GPU's main memory and is slow. Needs nvcc (`NVCC`, `CUDA_HOME`, or on the path), no GPU.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { fail, line } from './output.mjs';

const architectures = ['sm_80', 'sm_90a'];
const folder = fileURLToPath(new URL('../crates/cuda/kernels', import.meta.url));

/**
 * @typedef {object} Resources
 * @property {string} kernel
 * @property {string} architecture
 * @property {number} registers of a thread
 * @property {number} local bytes of local memory of a thread
 * @property {number} stores bytes of registers written there for want of registers
 * @property {number} loads bytes of them read
 */

/**
 * @param {string} nvcc
 * @returns {Promise<Resources[]>} of every kernel on every architecture
 */
export async function kernelResources(nvcc) {
  const out = mkdtempSync(join(tmpdir(), 'candlewick-kernels-'));
  try {
    const all = [];
    for (const file of readdirSync(folder)
      .filter((name) => name.endsWith('.cu'))
      .sort()) {
      for (const architecture of architectures) {
        const options = ['-std=c++17', '-O3', '-Werror', 'all-warnings', '-Xptxas', '-v', '-cubin'];
        const { stderr, stdout } = await promisify(execFile)(nvcc, [
          ...options,
          `-arch=${architecture}`,
          join(folder, file),
          '-o',
          join(out, 'kernel.cubin'),
        ]);
        all.push(...parsed(`${stdout}${stderr}`, architecture));
      }
    }
    // Stable: what a kernel takes on each architecture stands together.
    return all.sort((a, b) => a.kernel.localeCompare(b.kernel));
  } finally {
    rmSync(out, { recursive: true });
  }
}

/**
 * @param {string} report of ptxas
 * @param {string} architecture
 * @returns {Resources[]}
 */
function parsed(report, architecture) {
  const kernel =
    /entry function '(\w+)'[\s\S]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads[\s\S]*?Used (\d+) registers/g;
  return [...report.matchAll(kernel)].map(([, name, local, stores, loads, registers]) => ({
    kernel: name,
    architecture,
    registers: Number(registers),
    local: Number(local),
    stores: Number(stores),
    loads: Number(loads),
  }));
}

/** @param {Resources[]} all */
export function resourceTable(all) {
  const width = Math.max(...all.map(({ kernel }) => kernel.length));
  const row = (cells) =>
    cells.map((cell, i) => (i === 0 ? `${cell}`.padEnd(width) : `${cell}`.padStart(12))).join(' ');
  const lines = all.map(({ kernel, architecture, registers, local, stores, loads }) =>
    row([kernel, architecture, registers, local, `${stores} + ${loads}`]),
  );
  return [row(['kernel', 'on', 'registers', 'local bytes', 'spilled']), ...lines].join('\n');
}

async function main() {
  const { NVCC, CUDA_HOME } = process.env;
  const nvcc = NVCC ?? (CUDA_HOME ? join(CUDA_HOME, 'bin/nvcc') : 'nvcc');
  let all;
  try {
    all = await kernelResources(nvcc);
  } catch (error) {
    const hint =
      error.code === 'ENOENT'
        ? `${nvcc} is not there: name nvcc 13.0 in NVCC, or its toolkit in CUDA_HOME`
        : 'this is what nvcc says of the kernels in crates/cuda/kernels';
    fail([{ message: `${error.stderr || error.message}`.trimEnd(), hint }], 1);
  }
  process.stdout.write(`${resourceTable(all)}\n`);
  const slow = all.filter(({ local }) => local > 0);
  if (slow.length === 0) return line(`${all.length} kernels, none with local memory`);
  fail(
    slow.map(({ kernel, architecture, local }) => ({
      message: `${kernel} takes ${local} bytes of local memory on ${architecture}`,
      hint: 'smaller tiles, or fewer values that live at a time',
    })),
    1,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
