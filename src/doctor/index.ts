/** Looks at everything that a run needs, and says what to do about what is wrong. */
import type { Check, DoctorOptions } from './check.js';
import { checkDisk } from './disk.js';
import { checkHub } from './hub.js';
import { checkGpu, checkMemory, checkOpenFiles, checkProcessor } from './machine.js';
import { checkBinding, checkNode } from './program.js';
import { checkPython } from './python.js';

export type { Check, DoctorOptions } from './check.js';

/** Every check, in the order in which people read them; none of them throws because of what it finds. */
export async function* diagnose(options: DoctorOptions = {}): AsyncGenerator<Check> {
  // The slow ones are begun at once.
  const [gpu, python, hub] = [checkGpu(options), checkPython(options), checkHub(options)];
  yield checkNode();
  yield checkBinding(options);
  yield checkProcessor(options);
  yield checkMemory(options);
  yield checkOpenFiles(options);
  yield await gpu;
  yield* await python;
  yield* await hub;
  yield await checkDisk(options);
}
