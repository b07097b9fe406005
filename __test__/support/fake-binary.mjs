/** The smallest binaries that a platform's loader would not turn away, to try what looks at binaries. */

/**
 * @param {import('../../scripts/targets.mjs').Target} target
 * @param {{ machine?: string, glibc?: string, architectures?: string[], ptx?: string }} [made] for which processor; the
 *   newest version of glibc that it asks for (that of musl's has to be none); the GPUs that there is a program for inside,
 *   and the version and target of the one for the driver's compiler
 */
export function fakeBinary({ os, cpu, libc }, made = {}) {
  const { machine = cpu, glibc = libc === 'musl' ? 'none' : '2.28' } = made;
  const { architectures = ['sm_80', 'sm_90a'], ptx = '9.0 sm_80' } = made;
  if (os === 'darwin') return machO(machine);
  if (os === 'win32') return portableExecutable(machine);
  const bytes = Buffer.alloc(512);
  header(bytes, 0, machine === 'x64' ? 62 : 183);
  // Two sections: the names, and one needed version of one library.
  bytes.writeBigUInt64LE(64n, 40);
  bytes.writeUInt16LE(64, 58);
  bytes.writeUInt16LE(2, 60);
  bytes.writeBigUInt64LE(256n, 64 + 24);
  bytes.write(`GLIBC_${glibc}\0`, 256, 'latin1');
  bytes.writeUInt32LE(0x6ffffffe, 128 + 4);
  bytes.writeBigUInt64LE(300n, 128 + 24);
  bytes.writeUInt32LE(0, 128 + 40);
  bytes.writeUInt32LE(1, 128 + 44);
  bytes.writeUInt16LE(1, 302);
  bytes.writeUInt32LE(16, 308);
  if (architectures.length === 0) return bytes;
  const [version, target] = ptx.split(' ');
  const text = Buffer.from(`\n.version ${version}\n.target ${target}\n`);
  return Buffer.concat([bytes, ...architectures.map(gpuProgram), text]);
}

/** An ELF file for a GPU, with the note of what ptxas was told. */
function gpuProgram(architecture) {
  const bytes = Buffer.alloc(128);
  header(bytes, 0, 190);
  bytes.write(`-arch ${architecture} \0`, 64, 'latin1');
  return bytes;
}

function header(bytes, at, machine) {
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1], at);
  bytes.writeUInt16LE(machine, at + 18);
}

function machO(machine) {
  const bytes = Buffer.alloc(64);
  bytes.writeUInt32LE(0xfeedfacf, 0);
  bytes.writeUInt32LE(machine === 'x64' ? 0x01000007 : 0x0100000c, 4);
  return bytes;
}

function portableExecutable(machine) {
  const bytes = Buffer.alloc(128);
  bytes.writeUInt16LE(0x5a4d, 0);
  bytes.writeUInt32LE(64, 60);
  bytes.writeUInt32LE(0x4550, 64);
  bytes.writeUInt16LE(machine === 'x64' ? 0x8664 : 0xaa64, 68);
  return bytes;
}
