/** What a machine with a GPU but without Node needs for bench/pod/check.mjs, packed. */
import { copyFileSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { part } from './output.mjs';
import { nativeCuda, npmCommand, step, typescript } from './parts.mjs';
import { stagePackages } from './stage-packages.mjs';

/**
 * `check.sh` and the archive that it unpacks, into artifacts/pod: Node, the packages with CUDA inside, and bench/pod.
 *
 * @param {import('./parts.mjs').Work} work
 */
export async function podCheck(work, toolkit) {
  const { root, env } = work;
  const binary = await nativeCuda(work, toolkit);
  await typescript(work);
  const dist = join(root, 'artifacts/pod');
  const [staged, inside] = [join(dist, 'staged'), join(dist, 'inside')];
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(inside, { recursive: true });

  const packages = await stagePackages(dirname(binary), staged);
  writeFileSync(join(inside, 'package.json'), '{ "private": true, "type": "module" }\n');
  const [npm, first] = npmCommand(env);
  const install = [
    'install',
    '--prefix',
    inside,
    '--ignore-scripts',
    '--install-links',
    '--no-audit',
    '--no-fund',
  ];
  const folders = packages.map(({ folder }) => folder);
  await step(work, 'packages', 'npm install', npm, [...first, ...install, ...folders], { code: 1 });
  for (const name of ['check.mjs', 'streamer.mjs'])
    copyFileSync(join(root, 'bench/pod', name), join(inside, name));

  // Without the names of its functions Node is an eighth smaller (86 MB of 99).
  copyFileSync(process.execPath, join(inside, 'node'));
  await step(work, 'Node', 'strip', 'strip', [join(inside, 'node')], { code: 1 });
  const archive = join(dist, 'pod.tar.xz');
  await step(work, 'archive', 'tar', 'tar', ['-cJf', archive, '-C', inside, '.'], { code: 1 });
  copyFileSync(join(root, 'bench/pod/check.sh'), join(dist, 'check.sh'));
  for (const folder of [staged, inside]) rmSync(folder, { recursive: true });
  part('size', `${(statSync(archive).size / 1e6).toFixed(1)} MB: ${archive}`);
}
