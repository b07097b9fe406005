/** What a build with CUDA has to be, read from its bytes. */
import { readFileSync } from 'node:fs';

/** Functions of CUDA's libraries, by name. */
const ofCuda = /^(cu[A-Z]|cublas|curand|nvrtc|cudnn|nccl|cuda[A-Z]|__cuda)/;
/** Libraries of CUDA, by file name. */
const cudaLibrary = /^lib(cu|nv|nccl)/;
/** As `crates/cuda/build.rs` compiles, and candle's kernels with it. */
const ptxTarget = 'sm_80';
const ptxVersion = '9.0';
const architectures = ['sm_80', 'sm_90a'];

/**
 * @typedef {object} Binary
 * @property {string[]} needed libraries that have to be there for it to load
 * @property {string[]} undefinedCuda functions of CUDA that nothing inside defines
 * @property {string[]} ptx version and target of each text for the driver's compiler, once each
 * @property {string[]} architectures of the machine code for GPUs, once each
 */

/**
 * @param {string} file
 * @returns {Binary}
 */
export function inspectBinary(file) {
  const bytes = readFileSync(file);
  const { needed, undefinedNames } = dynamic(bytes);
  const ptx = new Set();
  // In the order in which compilers write it: version, then target.
  for (const [, version, target] of bytes
    .toString('latin1')
    .matchAll(/\n\.version (\d+\.\d+)\s+\.target (\w+)/g)) {
    ptx.add(`${version} ${target}`);
  }
  return {
    needed,
    undefinedCuda: undefinedNames.filter((name) => ofCuda.test(name)),
    ptx: [...ptx].sort(),
    architectures: cubins(bytes),
  };
}

/**
 * @param {Binary} binary
 * @returns {string[]} what is wrong, in words; nothing where it is as it has to be
 */
export function faults({ needed, undefinedCuda, ptx, architectures: found }) {
  const wrong = [];
  const libraries = needed.filter((name) => cudaLibrary.test(name));
  if (libraries.length > 0) wrong.push(`it does not load without ${libraries.join(', ')}`);
  if (undefinedCuda.length > 0) {
    wrong.push(
      `functions of CUDA are called that crates/cuda/symbols.txt does not list: ${undefinedCuda.join(', ')}; ` +
        'where they are meant, npm run build:cuda -- --symbols writes the list anew',
    );
  }
  const wanted = `${ptxVersion} ${ptxTarget}`;
  if (ptx.length !== 1 || ptx[0] !== wanted) {
    wrong.push(`PTX (version, target) is ${ptx.join('; ') || 'not there'}, and has to be ${wanted}`);
  }
  for (const architecture of architectures) {
    if (!found.includes(architecture)) wrong.push(`there is no machine code for ${architecture}`);
  }
  for (const architecture of found) {
    if (!architectures.includes(architecture))
      wrong.push(`there is machine code for ${architecture}, unasked`);
  }
  return wrong;
}

const magic = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
const forCuda = 190;

/** The architectures of the ELF files inside that are for GPUs, as their notes say what ptxas was told. */
function cubins(bytes) {
  const found = new Set();
  for (let at = bytes.indexOf(magic); at !== -1; at = bytes.indexOf(magic, at + 1)) {
    if (at + 64 > bytes.length || bytes.readUInt16LE(at + 18) !== forCuda) continue;
    // The flags of its header know no letter: 90 and 90a are the same there.
    const note = bytes.indexOf('-arch sm_', at);
    const told = /^-arch (sm_\w+)/.exec(bytes.toString('latin1', note, note + 20))?.[1];
    found.add(told ?? 'an unknown GPU');
  }
  return [...found].sort();
}

const dynamicSection = 6;
const dynamicSymbols = 11;
const neededTag = 1n;

/** NEEDED entries and undefined names of a 64-bit little-endian ELF file. */
function dynamic(bytes) {
  const [start, size, count] = [bytes.readBigUInt64LE(40), bytes.readUInt16LE(58), bytes.readUInt16LE(60)];
  const sections = Array.from({ length: count }, (_, i) => {
    const at = Number(start) + i * size;
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      size: Number(bytes.readBigUInt64LE(at + 32)),
      link: bytes.readUInt32LE(at + 40),
    };
  });
  const text = (table, at) => {
    const from = table.offset + at;
    return bytes.toString('latin1', from, bytes.indexOf(0, from));
  };
  const needed = [];
  const undefinedNames = [];
  for (const section of sections) {
    const strings = sections[section.link];
    const end = section.offset + section.size;
    if (section.type === dynamicSection) {
      for (let at = section.offset; at < end; at += 16) {
        if (bytes.readBigUInt64LE(at) === neededTag)
          needed.push(text(strings, Number(bytes.readBigUInt64LE(at + 8))));
      }
    }
    if (section.type === dynamicSymbols) {
      for (let at = section.offset + 24; at < end; at += 24) {
        if (bytes.readUInt16LE(at + 6) === 0) undefinedNames.push(text(strings, bytes.readUInt32LE(at)));
      }
    }
  }
  return { needed, undefinedNames: undefinedNames.sort() };
}
