/** What happens to machines happens to real runs: each goes on exactly from the last good checkpoint, or is refused. */
import { spawnSync } from 'node:child_process';
import { cp, mkdir, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CheckpointStore, type TrainerEvent, verify } from '../src/run/index.js';
import { isBuilt, killAll } from './support/program.js';
import { repository } from './support/python.js';
import { TinyRuns } from './support/tiny-run.js';

/** The checkpoint that is killed, and how far the run is to go afterwards. */
const [saved, last] = [3, 4];

/** Mounts a small disk; null where that is not allowed. */
function smallDisk(path: string, kilobytes: number, ...options: string[]): { unmount: () => void } | null {
  const argv = ['-t', 'tmpfs', '-o', [`size=${kilobytes}k`, ...options].join(), 'tmpfs', path];
  if (spawnSync('mount', argv).status !== 0) return null;
  return { unmount: () => void spawnSync('umount', ['-l', path]) };
}

describe.skipIf(!isBuilt)('a real run', () => {
  let runs: TinyRuns;
  let before: string;
  let expected: string[];
  beforeAll(async () => {
    runs = await TinyRuns.make();
    before = join(runs.root, 'before');
    await runs.train(before, saved - 1);
    const whole = join(runs.root, 'whole');
    await runs.train(whole, last);
    expected = await runs.losses(whole);
  });
  afterAll(async () => {
    killAll();
    await runs.close();
  });

  const copy = async (name: string) => {
    const output = join(runs.root, name);
    await rm(output, { recursive: true, force: true });
    await cp(before, output, { recursive: true });
    return output;
  };
  const checkpoints = (output: string) => new CheckpointStore(join(output, 'checkpoints'));
  const newest = async (output: string) => (await checkpoints(output).newest(() => undefined))?.step;
  /** Goes on to the end, and is held against the run that nothing happened to. */
  const goesOn = async (output: string) => {
    const warnings: string[] = [];
    await runs.train(output, last, {
      onSetup: (event) => event.type === 'warning' && warnings.push(event.message),
    });
    expect(await runs.losses(output)).toEqual(expected);
    expect(await newest(output)).toBe(last);
    const left = await readdir(join(output, 'checkpoints'));
    expect(left.filter((name) => !/^step-\d{8}$/.test(name))).toEqual([]);
    return warnings.join('\n');
  };

  const library = () => join(runs.root, 'strike.so');
  const compiles = () =>
    spawnSync('cc', [
      '-shared',
      '-fPIC',
      '-O1',
      '-o',
      library(),
      join(repository, '__test__/support/strike.c'),
      '-ldl',
      '-lpthread',
    ]).status === 0;

  it('killed at every point of a save goes on exactly', { timeout: 400_000 }, async (context) => {
    if (process.platform !== 'linux' || !compiles()) return context.skip('no C compiler, or not Linux');
    const strike = { LD_PRELOAD: library(), STRIKE_BELOW: '/checkpoints/' };
    const log = join(runs.root, 'points');
    const whole = await runs.program(await copy('counted'), saved, { ...strike, STRIKE_LOG: log });
    expect(whole.end, whole.stderr).toBe(0);
    const points = (await readFile(log, 'utf8')).trim().split('\n');
    for (const what of ['create', 'half of a write', 'sync', 'make a directory', 'rename', 'delete'])
      expect(points.filter((point) => point.endsWith(` ${what}`)).length, what).toBeGreaterThan(0);
    const outcomes = new Set<number | undefined>();
    const kill = async (at: number, lane: string) => {
      const output = await copy(`killed-${lane}`);
      const { end, stderr } = await runs.program(output, saved, { ...strike, STRIKE_AT: String(at) });
      expect(end, `${points[at - 1]}: ${stderr}`).toBe('SIGKILL');
      const step = await newest(output);
      outcomes.add(step);
      expect([saved - 1, saved], points[at - 1]).toContain(step);
      await goesOn(output);
    };
    const numbers = points.map((_, i) => i + 1);
    const lane = async (name: string) => {
      for (let at = numbers.shift(); at !== undefined; at = numbers.shift()) await kill(at, name);
    };
    await Promise.all([lane('a'), lane('b')]);
    expect(outcomes).toEqual(new Set([saved - 1, saved]));
  });

  it('without memory for a copy writes while the steps wait, and goes on exactly', async (context) => {
    if (process.platform !== 'linux' || !compiles()) return context.skip('no C compiler, or not Linux');
    const meminfo = join(runs.root, 'meminfo');
    await writeFile(meminfo, 'MemTotal:       24683852 kB\nMemAvailable:          1 kB\n');
    const output = join(runs.root, 'poor');
    const copied = async (env: Record<string, string>) => {
      await rm(output, { recursive: true, force: true });
      const { end, stdout, stderr } = await runs.program(output, saved, { LD_PRELOAD: library(), ...env });
      expect(end, stderr).toBe(0);
      const events = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as TrainerEvent);
      return events.flatMap((event) => (event.type === 'checkpoint' ? [event.copied] : []));
    };
    const each = Array.from({ length: saved + 1 });
    expect(await copied({})).toEqual(each.map(() => true));
    expect(await copied({ STRIKE_MEMINFO: meminfo })).toEqual(each.map(() => false));
    expect(await runs.losses(output)).toEqual(expected.slice(0, saved));
    await goesOn(output);
  });

  it('with a byte flipped in any file of the newest goes back to the one before, and says so', async () => {
    const names = await readdir(join(before, 'checkpoints', 'step-00000002'));
    expect(names.sort()).toEqual(
      'config.json manifest.json model.safetensors optimizer.safetensors stream.json trainer.json'.split(' '),
    );
    for (const name of names) {
      const { size } = await stat(join(before, 'checkpoints', 'step-00000002', name));
      // The first, the last, and one between.
      for (const at of [0, Math.floor(size * 0.618), size - 2]) {
        const output = await copy('flipped');
        const path = join(output, 'checkpoints', 'step-00000002', name);
        const bytes = await readFile(path);
        bytes[at] = (bytes[at] ?? 0) ^ 1;
        await writeFile(path, bytes);
        expect(await newest(output), `byte ${at} of ${name}`).toBe(1);
        if (at > 0) expect(await goesOn(output)).toMatch(new RegExp(`step-00000002 is damaged \\(${name} `));
      }
    }
  });

  it('with nothing good but the checkpoint of step 0 goes on from there', async () => {
    const output = join(runs.root, 'first');
    await runs.train(output, 1);
    const path = join(output, 'checkpoints', 'step-00000001', 'optimizer.safetensors');
    await truncate(path, 100);
    expect(await goesOn(output)).toContain('step-00000001 is damaged');
  });

  it('with any file of the newest cut in half or gone goes back to the one before', async () => {
    for (const name of await readdir(join(before, 'checkpoints', 'step-00000002'))) {
      const output = await copy('cut');
      const path = join(output, 'checkpoints', 'step-00000002', name);
      await truncate(path, Math.floor((await stat(path)).size / 2));
      expect(await newest(output), name).toBe(1);
      await rm(path);
      expect(await newest(output), name).toBe(1);
      expect(await goesOn(output)).toMatch(new RegExp(`step-00000002 is damaged \\(${name} is missing\\)`));
    }
  });

  it('on a disk that fills ends with DISK_FULL, and goes on when there is room', async (context) => {
    const output = join(runs.root, 'full');
    await mkdir(output);
    const disk = smallDisk(output, 4096);
    if (disk === null) return context.skip('no small disk can be mounted: only root may');
    try {
      const filler = join(output, 'filler');
      const fill = async () => {
        for (let size = 1 << 20; size >= 1024; size /= 2) {
          for (;;) {
            const written = await writeFile(filler, Buffer.alloc(size), { flag: 'a' }).then(
              () => true,
              () => false,
            );
            if (!written) break;
          }
        }
      };
      const run = runs.train(output, last, {
        each: (event) => (event.type === 'step' && event.step === 2 ? fill() : undefined),
      });
      await expect(run).rejects.toMatchObject({ code: 'DISK_FULL', exitCode: 3 });
      const left = await readdir(join(output, 'checkpoints'));
      expect(left.length).toBeGreaterThan(0);
      for (const name of left)
        expect(await verify(join(output, 'checkpoints', name))).toHaveProperty('manifest');
      await rm(filler);
      await goesOn(output);
    } finally {
      disk.unmount();
    }
  });

  it('on a disk that is too small is refused before a step, with what is needed and free', async (context) => {
    const output = join(runs.root, 'small');
    await mkdir(output);
    const disk = smallDisk(output, 400);
    if (disk === null) return context.skip('no small disk can be mounted: only root may');
    try {
      const { end, stdout } = await runs.program(output, last);
      expect(end, stdout).toBe(3);
      expect(stdout).toMatch(/"code":"DISK_FULL".*need [\d.]+ (kB|MB) in .*3 of .* and 4\d\d kB are free/);
      expect(stdout).not.toContain('"type":"step"');
    } finally {
      disk.unmount();
    }
  });

  it('in a directory that cannot be written to is refused at once', async (context) => {
    const output = join(runs.root, 'locked');
    await mkdir(output, { mode: 0o555 });
    // Rights do not bind root: a disk that is read only does.
    const isRoot = process.getuid?.() === 0;
    const disk = isRoot ? smallDisk(output, 4096, 'ro') : { unmount: () => undefined };
    if (disk === null) return context.skip('this root may not mount a disk');
    try {
      const { end, stdout } = await runs.program(output, last);
      expect(end, stdout).toBe(3);
      expect(stdout).toMatch(/"code":"NOT_WRITABLE".*locked/);
    } finally {
      disk.unmount();
    }
  });

  it('that several processes start at once belongs to one of them', async () => {
    const output = join(runs.root, 'crowd');
    const ends = await Promise.all(Array.from({ length: 4 }, () => runs.program(output, last)));
    const codes = ends.map(({ end }) => end);
    expect(codes.filter((code) => code === 0).length, JSON.stringify(ends)).toBeGreaterThan(0);
    for (const { end, stdout } of ends) {
      if (end === 0) continue;
      expect(end).toBe(2);
      expect(stdout).toContain('"code":"OUTPUT_IN_USE"');
    }
    expect(await runs.losses(output)).toEqual(expected);
  });
});
