/** What a build with CUDA has to be, read from its bytes. */
export interface Binary {
  /** Libraries that have to be there for it to load. */
  needed: string[];
  /** Functions of CUDA that nothing inside defines. */
  undefinedCuda: string[];
  /** Version and target of each text for the driver's compiler, once each. */
  ptx: string[];
  /** Architectures of the machine code for GPUs, once each. */
  architectures: string[];
}

export function inspectBinary(file: string): Binary;

/** What is wrong, in words; nothing where it is as it has to be. */
export function faults(binary: Binary): string[];
