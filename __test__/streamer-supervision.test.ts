/** The streamer dies, hangs, stays silent, lies: what its supervisor makes of it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SourceEvent } from '../src/corpus/notices.js';
import { Streamer, type StreamerOptions } from '../src/corpus/streamer.js';
import { LocalHub } from './support/hub.js';
import { PlainLink } from './support/link.js';
import { python, runPython, writeParquet } from './support/python.js';
import { Session, streamerScript } from './support/session.js';

// Large enough that a pipe does not hold much of them.
const documents = Array.from({ length: 3000 }, (_, i) => `document ${i} ${String(i).repeat(1000)}`);
const groups = 30;
let folder: string;
let dataset: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-supervision-'));
  dataset = join(folder, 'rows.parquet');
  await writeParquet({ path: dataset, documents, groupRows: documents.length / groups });
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

interface Changes {
  options?: Partial<StreamerOptions>;
  dataset?: string;
  env?: Record<string, string | undefined>;
}

function supervise(changes: Changes = {}) {
  const link = new PlainLink();
  const events: SourceEvent[] = [];
  const onEvent: { current: (event: SourceEvent) => void } = { current: () => {} };
  const streamer = new Streamer(link, {
    source: {
      dataset: changes.dataset ?? dataset,
      configName: null,
      split: 'train',
      textColumn: 'text',
      revision: null,
      batchSize: 30,
    },
    python,
    env: { ...process.env, ...changes.env },
    loadTimeout: 60_000,
    retryDelay: 1,
    onEvent: (event) => {
      events.push(event);
      onEvent.current(event);
    },
    ...changes.options,
  });
  const restarts = () => events.filter(({ type }) => type === 'restart').length;
  return { link, streamer, events, onEvent, restarts };
}

async function readAll(link: PlainLink): Promise<string[]> {
  const rows = documents.length / groups;
  const parts = await Promise.all(Array.from({ length: groups }, (_, group) => link.read(0, group, rows)));
  return parts.flat();
}

const kill = (pid: number | undefined, signal: NodeJS.Signals) => process.kill(pid as number, signal);

describe('a streamer that is killed', () => {
  it('is started again and gives exactly the rest, however often that happens', async () => {
    const { link, restarts, streamer } = supervise();
    let batches = 0;
    link.onBatch = () => {
      if ([1, 30, 61, 92].includes(batches++)) kill(streamer.pid, 'SIGKILL');
    };
    expect(await readAll(link)).toEqual(documents);
    expect(restarts()).toBe(4);
    await streamer.close();
  });

  it('before it was ever ready is started again, three times', async () => {
    const once = supervise();
    kill(once.streamer.pid, 'SIGKILL');
    expect(await once.streamer.ready()).toMatchObject({ kind: 'ready' });
    expect(once.restarts()).toBe(1);
    await once.streamer.close();
    const always = supervise();
    always.onEvent.current = ({ type }) => {
      if (type === 'loading') kill(always.streamer.pid, 'SIGKILL');
    };
    await expect(always.streamer.ready()).rejects.toMatchObject({ code: 'STREAMER_CRASHED' });
    expect(always.restarts()).toBe(3);
    await always.streamer.close();
  });

  it('three times without having brought anything is given up, with what it wrote', async () => {
    const noisy = join(folder, 'noisy');
    await mkdir(noisy, { recursive: true });
    await writeFile(join(noisy, 'sitecustomize.py'), 'import sys\nprint("last words", file=sys.stderr)\n');
    const { link, onEvent, restarts, streamer } = supervise({ env: { PYTHONPATH: noisy } });
    onEvent.current = ({ type }) => {
      if (type === 'ready') kill(streamer.pid, 'SIGKILL');
    };
    await expect(readAll(link)).rejects.toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringMatching(/killed by SIGKILL[^]*last words/),
      hint: expect.stringContaining('candlewick setup'),
    });
    expect(restarts()).toBe(3);
    expect(streamer.failure).toMatchObject({ code: 'STREAMER_CRASHED' });
    await streamer.close();
  });

  it('and whose files are others afterwards is not gone on with', async () => {
    const changing = join(folder, 'changing');
    await writeParquet({ path: join(changing, 'a.parquet'), documents });
    const { link, onEvent, streamer } = supervise({ dataset: changing });
    await streamer.ready();
    await writeParquet({ path: join(changing, 'b.parquet'), documents });
    onEvent.current = () => {};
    const reading = link.read(0, 0, documents.length);
    kill(streamer.pid, 'SIGKILL');
    await expect(reading).rejects.toMatchObject({ code: 'SOURCE_CORRUPT' });
    await streamer.close();
  });
});

describe('a streamer that hangs', () => {
  it('is known by its silence, killed and started again', async () => {
    const { events, link, streamer } = supervise({ options: { silence: 1500, heartbeat: 0.1 } });
    let stopped = false;
    link.onBatch = () => {
      if (!stopped) kill(streamer.pid, 'SIGSTOP');
      stopped = true;
    };
    expect(await readAll(link)).toEqual(documents);
    const restart = events.find(({ type }) => type === 'restart');
    expect(restart).toMatchObject({ message: expect.stringContaining('silent for 1.5 s') });
    await streamer.close();
  });

  it('while loading meets the load timeout', async () => {
    await using hub = await LocalHub.start({ 'slow/set': folder });
    hub.script = () => ({ delay: 60_000 });
    const { streamer } = supervise({
      dataset: 'slow/set',
      env: { HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') },
      options: { loadTimeout: 3000 },
    });
    await expect(streamer.ready()).rejects.toMatchObject({
      code: 'STREAMER_TIMEOUT',
      hint: expect.stringContaining('--load-timeout'),
    });
    await streamer.close();
  });

  it('does not: its heartbeats come while nothing is asked of it', async () => {
    await using session = new Session(['--dataset', dataset, '--heartbeat', '0.02']);
    await session.ready();
    for (let beats = 0; beats < 3; beats++) expect((await session.next('heartbeat'))?.kind).toBe('heartbeat');
  });
});

describe('a source that fails', () => {
  it('tells its code, message and hint', async () => {
    const { streamer } = supervise({ dataset: join(folder, 'nowhere') });
    await expect(streamer.ready()).rejects.toMatchObject({
      name: 'SourceError',
      code: 'DATASET_NOT_FOUND',
      exitCode: 4,
      message: expect.stringContaining('nowhere'),
    });
    await streamer.close();
  });

  it('while it is read is tried again where that may help', async () => {
    const shards = join(folder, 'shards');
    await writeParquet({ path: join(shards, 'train.parquet'), documents, groupRows: 100 });
    await using hub = await LocalHub.start({ 'some/set': shards });
    const env = { HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home-retry') };
    const { events, link, restarts, streamer } = supervise({ dataset: 'some/set', env });
    await streamer.ready();
    // The file seems to be gone, once.
    let faults = 0;
    hub.script = ({ file, range }) => (file && range && faults++ === 0 ? { status: 404 } : null);
    expect(await readAll(link)).toEqual(documents);
    expect(restarts()).toBe(0);
    expect(events.filter(({ type }) => type === 'retry' || type === 'recovered')).toMatchObject([
      { type: 'retry', attempt: 1, cause: '404 from the hub', budget: 1800 },
      { type: 'recovered', attempts: 1 },
    ]);
    await streamer.close();
  });

  it('without its Python packages names the cure', async () => {
    const bare = join(folder, 'bare');
    await runPython('import json, sys, venv; venv.create(json.load(sys.stdin), with_pip=False)', bare);
    const { streamer } = supervise({ dataset: 'sample', options: { python: join(bare, 'bin', 'python') } });
    await expect(streamer.ready()).rejects.toMatchObject({
      name: 'EnvironmentError',
      code: 'PYTHON_PACKAGE_MISSING',
      message: expect.stringContaining('google_crc32c'),
      hint: expect.stringMatching(/npx candlewick setup.*pip install/),
    });
    await streamer.close();
  });

  it('without `datasets` says so', async () => {
    // Hides the library from the interpreter that has it.
    const hidden = join(folder, 'hidden', 'datasets');
    await mkdir(hidden, { recursive: true });
    const raise = 'raise ModuleNotFoundError("No module named \'datasets\'", name="datasets")\n';
    await writeFile(join(hidden, '__init__.py'), raise);
    const { streamer } = supervise({ dataset: folder, env: { PYTHONPATH: join(folder, 'hidden') } });
    await expect(streamer.ready()).rejects.toMatchObject({
      code: 'PYTHON_PACKAGE_MISSING',
      message: expect.stringContaining('package datasets is not installed'),
      hint: expect.stringContaining('npx candlewick setup'),
    });
    await streamer.close();
  });

  it('because Python cannot be started says so', async () => {
    const { streamer } = supervise({ options: { python: join(folder, 'no-python') } });
    await expect(streamer.ready()).rejects.toMatchObject({ code: 'PYTHON_NOT_FOUND', exitCode: 3 });
    await streamer.close();
  });
});

describe('the end', () => {
  it('of a streamer comes with close, also in the middle of its loading or reading', async () => {
    const loading = supervise();
    const refused = expect(loading.streamer.ready()).rejects.toMatchObject({ code: 'ABORTED' });
    await loading.streamer.close();
    await refused;
    const reading = supervise();
    const read = expect(readAll(reading.link)).rejects.toMatchObject({ code: 'ABORTED' });
    await reading.streamer.ready();
    const { pid } = reading.streamer;
    await reading.streamer.close();
    await read;
    for (const gone of [loading.streamer.pid, pid]) expect(() => kill(gone, 'SIGCONT')).toThrow('ESRCH');
  });

  it('of a streamer that does not listen comes with KILL', async () => {
    const { link, streamer } = supervise();
    const stopped = new Promise<void>((resolve) => {
      link.onBatch = () => {
        kill(streamer.pid, 'SIGSTOP');
        resolve();
      };
    });
    link.read(0, 0, 100).catch(() => {});
    await stopped;
    const { pid } = streamer;
    await streamer.close();
    expect(() => kill(pid, 'SIGCONT')).toThrow('ESRCH');
  });

  it('of the parent by SIGKILL is the end of the streamer', async () => {
    const parent = `
      const { spawn } = require('node:child_process');
      const child = spawn(${JSON.stringify(python)}, [${JSON.stringify(streamerScript)}, '--dataset', ${JSON.stringify(dataset)}],
        { stdio: ['pipe', 'ignore', 'inherit', 'pipe'], detached: true });
      child.stdio[3].once('data', () => console.log(child.pid));
    `;
    const node = spawn(process.execPath, ['-e', parent], { stdio: ['ignore', 'pipe', 'pipe'] });
    const [pid] = (await once(node.stdout, 'data')) as [Buffer];
    // The streamer inherited this pipe, so it ends when both of them are gone.
    const stderr = text(node.stderr);
    expect(Number(pid)).toBeGreaterThan(0);
    node.kill('SIGKILL');
    expect(await stderr).toBe('');
  });

  it('does not come with Ctrl+C, nor does a traceback', async () => {
    await using session = new Session(['--dataset', dataset]);
    await session.ready();
    kill(session.child.pid, 'SIGINT');
    expect((await session.read(0, 0, 0, 100)).length).toBe(1);
    session.send({ op: 'close' });
    await session.exit;
    expect(session.stderr).toBe('');
  });
});

describe('what libraries print', () => {
  it('does not get into the data', async () => {
    const loud = join(folder, 'loud');
    await mkdir(loud, { recursive: true });
    const shout =
      'import os, threading\ndef shout():\n  while True: os.write(1, b"noise"); print("noise", flush=True)\n';
    await writeFile(
      join(loud, 'sitecustomize.py'),
      `${shout}threading.Thread(target=shout, daemon=True).start()\n`,
    );
    const { link, streamer } = supervise({ env: { PYTHONPATH: loud } });
    expect(await readAll(link)).toEqual(documents);
    await streamer.close();
  });
});
