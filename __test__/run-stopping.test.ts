import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { StopSignals } from '../src/run/index.js';
import type { SetupEvent, TrainerEvent } from '../src/run/index.js';
import { withoutSecrets } from '../src/run/secrets.js';
import { FakeNative } from './support/fake-native.js';
import { FakeRun, uninterrupted } from './support/fake-run.js';

const at = new FakeRun();

/** A native side that stands still in step 3 until it is told to stop, and what is done there. */
function standing(action: () => unknown): FakeNative {
  const native = new FakeNative();
  native.beforeStep = async (step) => {
    if (step !== 3) return;
    const stopped = new Promise<void>((resolve) => {
      native.onStop = resolve;
    });
    await action();
    await stopped;
  };
  return native;
}

const causes = (events: readonly TrainerEvent[]) =>
  events.flatMap((event) => (event.type === 'stopping' ? [event.cause] : []));

describe('a run is stopped', () => {
  it('by a file called STOP in its directory, which is taken away', async () => {
    const stop = join(at.output, 'STOP');
    const events = await at.run({ native: standing(() => writeFile(stop, '')) });
    expect(causes(events)).toEqual(['file']);
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 2 });
    expect(existsSync(stop)).toBe(false);
    expect((await at.run()).at(-1)).toMatchObject({ reason: 'limit', step: 10 });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('not by a file of before: that is taken away, and said', async () => {
    await at.run({ native: standing(() => writeFile(join(at.output, 'STOP'), '')) });
    await writeFile(join(at.output, 'STOP'), '');
    const warnings: string[] = [];
    const onSetup = (event: SetupEvent) => event.type === 'warning' && warnings.push(event.message);
    expect((await at.run({ onSetup })).at(-1)).toMatchObject({ reason: 'limit', step: 10 });
    expect(warnings.join()).toContain('STOP was there from before');
  });

  it('by the minutes that it may take, and goes on with the same command', async () => {
    const config = at.values({ training: { max_steps: 10, global_batch_size: 2, max_minutes: 1e-6 } });
    const events = await at.run({ native: standing(() => undefined), config });
    expect(causes(events)).toEqual(['minutes']);
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 2 });
    expect((await at.run()).at(-1)).toMatchObject({ reason: 'limit', step: 10 });
    expect(await at.losses()).toEqual(uninterrupted(10));
  });

  it('by its caller in the last evaluation, which it owes then', async () => {
    const native = new FakeNative();
    const controller = new AbortController();
    let evaluations = 0;
    native.onEvaluate = () => {
      if (++evaluations === 3) controller.abort();
    };
    const events = await at.run({ native, signal: controller.signal });
    expect(causes(events)).toEqual(['signal']);
    expect(events.at(-1)).toMatchObject({ type: 'done', reason: 'stopped', step: 10 });
    const after = await at.run();
    expect(after.map(({ type }) => type)).toEqual(['eval', 'sample', 'done']);
    expect(after.at(-1)).toMatchObject({ reason: 'limit', step: 10 });
  });
});

describe('a signal', () => {
  it('stops at once the second time; Ctrl+C that arrives twice, and SIGHUP after another, are one', () => {
    const exit = vi.spyOn(process, 'exit').mockImplementation((code) => {
      throw new Error(`exit ${code}`);
    });
    const heard: string[] = [];
    try {
      using signals = new StopSignals((name) => heard.push(name));
      process.emit('SIGTERM', 'SIGTERM');
      expect([signals.signal.aborted, signals.exitCode]).toEqual([true, 143]);
      process.emit('SIGTERM', 'SIGTERM');
      process.emit('SIGHUP', 'SIGHUP');
      expect(exit).not.toHaveBeenCalled();
      expect(() => process.emit('SIGINT', 'SIGINT')).toThrow('exit 130');
      expect(heard).toEqual(['SIGTERM']);
    } finally {
      exit.mockRestore();
    }
    expect(process.listenerCount('SIGHUP')).toBe(0);
  });
});

describe('the run directory', () => {
  /** Every file below the run directory with its text. */
  async function files(): Promise<[string, string][]> {
    const entries = await readdir(at.output, { recursive: true, withFileTypes: true });
    const paths = entries
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));
    return Promise.all(
      paths.map(async (path): Promise<[string, string]> => [path, await readFile(path, 'utf8')]),
    );
  }

  it('tells what was asked for, where it ran and what happened', async () => {
    const native = standing(() => undefined);
    await at.run({
      native,
      each: (event, trainer) => event.type === 'step' && event.step === 2 && trainer.stop(),
    });
    await at.run();
    const of = async (name: string) => readFile(join(at.output, name), 'utf8');
    expect(await of('config.input.yaml')).toMatch(/^# config\n[^]*dataset: made\/up/);
    expect(JSON.parse(await of('env.json'))).toMatchObject({
      candlewick: 'fake',
      node: process.versions.node,
      platform: process.platform,
      processors: expect.any(Number) as number,
    });
    const log = await of('train.log');
    expect(log).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z opening made\/up$/m);
    expect(log).toMatch(/saved .*step-00000004/);
    expect(log).toMatch(/stopped after step 2[^]*done after step 10/);
    const events = await at.lines<{ time: number; type: string; step: number }>('events.jsonl');
    expect(events.every(({ time, step }) => time > 1e9 && Number.isInteger(step))).toBe(true);
    expect(events.map(({ type }) => type).filter((type) => type === 'done')).toHaveLength(2);
    const steps = events.map(({ step }) => step);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
  });

  it('has its events cut back to the step that the run goes on from', async () => {
    const native = new FakeNative();
    native.failAt = { step: 7, code: 'DIVERGED' };
    await expect(at.run({ native })).rejects.toMatchObject({ code: 'DIVERGED' });
    const types = async () =>
      (await at.lines<{ type: string; step: number }>('events.jsonl')).map(
        ({ type, step }) => `${type} ${step}`,
      );
    expect((await types()).at(-1)).toBe('error 6');
    await at.run();
    expect(await types()).not.toContain('error 6');
    expect(await types()).toContain('checkpoint 4');
    expect((await types()).at(-1)).toBe('done 10');
    expect(await readFile(join(at.output, 'train.log'), 'utf8')).toContain('error[DIVERGED]');
  });

  it('holds no token, whatever said it', async () => {
    const token = 'hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345';
    vi.stubEnv('HF_TOKEN', 'a-token-of-another-shape');
    vi.stubEnv('HF_ENDPOINT', 'https://me:secret-word@hub.example');
    try {
      const native = new FakeNative();
      native.failAt = { step: 7, code: 'SOURCE_UNAVAILABLE' };
      native.failMessage = `GET https://me:secret-word@hub.example with ${token} and a-token-of-another-shape`;
      await expect(at.run({ native })).rejects.toMatchObject({ code: 'SOURCE_UNAVAILABLE' });
      const written = await files();
      expect(written.length).toBeGreaterThan(12);
      expect(written.find(([path]) => path.endsWith('events.jsonl'))?.[1]).toContain(
        'GET https://***@hub.example',
      );
      for (const [path, text] of written) {
        for (const secret of [token, 'a-token-of-another-shape', 'secret-word'])
          expect(text.includes(secret), `${path} holds ${secret}`).toBe(false);
      }
    } finally {
      vi.unstubAllEnvs();
    }
  });

  it('keeps words that only look like tokens', () => {
    expect(withoutSecrets('hf_hub_download of step 3, http://127.0.0.1:80/@x', {})).toBe(
      'hf_hub_download of step 3, http://127.0.0.1:80/@x',
    );
  });
});
