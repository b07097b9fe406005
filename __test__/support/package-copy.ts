/** The package as it is installed, but without its binary: for what has to be said when that does not load. */
import { cp, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { repository } from './python.js';

/** Copies the package into `place`, which it makes. */
export async function copyWithoutBinary(place: string): Promise<string> {
  await mkdir(place);
  for (const name of ['bin', 'package.json', 'configs']) {
    await cp(join(repository, name), join(place, name), { recursive: true });
  }
  const filter = (path: string) => !path.endsWith('.node');
  await cp(join(repository, 'dist'), join(place, 'dist'), { recursive: true, filter });
  await symlink(join(repository, 'node_modules'), join(place, 'node_modules'));
  return place;
}
