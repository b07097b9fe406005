/** `streamer.py --protocol json`, the reference speaker of the JSON lines. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { HuggingFaceStreamingCorpus, ProcessStreamingCorpus } from '../src/corpus/index.js';
import { LocalHub } from './support/hub.js';
import { python, writeParquet } from './support/python.js';
import { streamerScript } from './support/session.js';

const rows: (string | null)[] = Array.from({ length: 2345 }, (_, i) => {
  if (i % 100 === 7) return null;
  return i % 100 === 8 ? '' : `document ${i} ${'é\n"🕯'.repeat(i % 30)}`;
});
const lines = (texts: (string | null)[]) => texts.map((text) => `${JSON.stringify({ text })}\n`).join('');
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-speaker-'));
  await writeParquet(
    { path: join(folder, 'groups/b.parquet'), documents: rows.slice(900), groupRows: 130 },
    { path: join(folder, 'groups/a.parquet'), documents: rows.slice(0, 900), groupRows: 300 },
    { path: join(folder, 'mixed/c.parquet'), documents: rows.slice(0, 50), groupRows: 20 },
  );
  await writeFile(join(folder, 'mixed/a.jsonl.gz'), gzipSync(lines(rows)));
  await writeFile(join(folder, 'mixed/b.txt'), 'one document\n');
  await writeFile(join(folder, 'mixed/d.jsonl'), lines(rows.slice(0, 2000)));
  await writeFile(join(folder, 'mixed/e.txt'), '');
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const command = (dataset: string, ...args: string[]) => [
  python,
  streamerScript,
  '--protocol',
  'json',
  '--dataset',
  dataset,
  ...args,
];

async function collect(corpus: ProcessStreamingCorpus | HuggingFaceStreamingCorpus): Promise<string[]> {
  const found: string[] = [];
  for await (const text of corpus.stream()) found.push(text);
  await corpus.close();
  return found;
}

interface Line {
  status?: string;
  batch?: string[];
  position?: { file: number; group: number; row: number };
  done?: boolean;
  total?: number;
}

/** What a run from `position` writes. */
function written(argv: string[], position?: object): Line[] {
  const [file = '', ...args] = argv;
  const env = { ...process.env, CANDLEWICK_POSITION: position && JSON.stringify(position) };
  const { status, stderr, stdout } = spawnSync(file, args, { env, encoding: 'utf8', maxBuffer: 1 << 30 });
  if (status !== 0) throw new Error(stderr);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}

describe('streamer.py --protocol json', () => {
  it.each(['groups', 'mixed'])('gives the stream of the frames (%s)', async (name) => {
    const dataset = join(folder, name);
    const expected = await collect(new HuggingFaceStreamingCorpus(dataset, { python }));
    expect(expected.length).toBeGreaterThan(2000);
    for (const size of ['7', '1000']) {
      const corpus = new ProcessStreamingCorpus(command(dataset, '--batch-size', size), { epochs: 2 });
      expect(await collect(corpus)).toEqual([...expected, ...expected]);
    }
  });

  it('gives that of a hub and of sample, and of a template', async () => {
    await using hub = await LocalHub.start({ 'owner/set': join(folder, 'groups') });
    const env = { ...process.env, HF_ENDPOINT: hub.url, HF_HOME: join(folder, 'home') };
    const frames = new HuggingFaceStreamingCorpus('owner/set', { python, env });
    expect(await collect(new ProcessStreamingCorpus(command('owner/set'), { env }))).toEqual(
      await collect(frames),
    );
    const limit = { maxSamples: 300 };
    const sample = await collect(new HuggingFaceStreamingCorpus('sample', { python, ...limit }));
    expect(await collect(new ProcessStreamingCorpus(command('sample'), limit))).toEqual(sample);
    const dataset = join(folder, 'mixed/d.jsonl');
    const textTemplate = '<{text}>';
    expect(
      await collect(new ProcessStreamingCorpus(command(dataset, '--text-template', textTemplate))),
    ).toEqual(await collect(new HuggingFaceStreamingCorpus(dataset, { python, textTemplate })));
  });

  it.each(['groups', 'mixed'])(
    'goes on from every position that it names (%s)',
    (name) => {
      const argv = command(join(folder, name), '--batch-size', '170');
      const all = written(argv);
      const batches = all.filter(({ batch }) => batch !== undefined);
      for (let at = 0; at < batches.length; at += 4) {
        const rest = written(argv, batches[at]?.position);
        const texts = rest.flatMap(({ batch = [] }) => batch);
        expect(texts).toEqual(batches.slice(at + 1).flatMap(({ batch = [] }) => batch));
        expect(rest.at(-1)).toEqual({ done: true, total: texts.filter((text) => text !== '').length });
      }
    },
    60_000,
  );

  it('that is killed goes on with the next document', async () => {
    const dataset = join(folder, 'groups');
    const expected = await collect(new HuggingFaceStreamingCorpus(dataset, { python }));
    const restarts: string[] = [];
    await using corpus = new ProcessStreamingCorpus(command(dataset, '--batch-size', '10'), {
      restartDelay: 0.001,
      onEvent: (event) => {
        if (event.type === 'restart') restarts.push(event.code);
      },
    });
    const found: string[] = [];
    let killed = 0;
    for await (const text of corpus.stream()) {
      found.push(text);
      // Held at a full pipe, or about to be: there is far more to come than fits.
      if (found.length === 1 || found.length === 1100) {
        for (const pid of corpus.pids) process.kill(pid, 'SIGKILL');
        killed += corpus.pids.length;
      }
    }
    expect(found).toEqual(expected);
    expect(killed).toBeGreaterThan(0);
    expect(restarts.length).toBeGreaterThan(0);
    expect(restarts.every((code) => code === 'STREAMER_CRASHED')).toBe(true);
  });

  it('says what is wrong in words, and the corpus hands them on', async () => {
    const corpus = new ProcessStreamingCorpus(command(join(folder, 'nowhere.jsonl')));
    await expect(collect(corpus)).rejects.toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringMatching(/error: there is no file .*nowhere\.jsonl\n {2}hint: /),
    });
    expect(() => written(command('sample'), { file: 'x' })).toThrow(/CANDLEWICK_POSITION is/);
    expect(() => written(command('sample'), { file: 0, group: -1, row: 0 })).toThrow(
      /CANDLEWICK_POSITION is/,
    );
  });

  it('ends quietly when nobody reads on', async () => {
    const [file = '', ...args] = command('sample');
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    await once(child.stdout, 'data');
    child.stdout.destroy();
    await once(child, 'close');
    expect(stderr).toBe('');
  });
});
