/** What the page is given: columns out of metrics.jsonl, curves out of columns, a server that only this machine reaches. */
import { appendFile, mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RowParser } from '../src/dash/columns.js';
import { curvesOf } from '../src/dash/downsample.js';
import { Dash } from '../src/dash/index.js';
import { decodeCurves } from '../src/dash/page/curves.js';
import { MetricsTail } from '../src/dash/tail.js';
import { evalRow, rowsOf, stepRow } from './support/metrics.js';

const parsed = (text: string): RowParser => {
  const parser = new RowParser();
  expect(parser.push(Buffer.from(text))).toBe(text.lastIndexOf('\n') + 1);
  return parser;
};

describe('rows become columns', () => {
  it('with the values that JSON.parse gives, in both kinds of rows', () => {
    const text = rowsOf(1, 500, 7);
    const { steps, evaluations } = parsed(text);
    const rows = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, number>);
    for (const [table, mark] of [
      [steps, 'loss'],
      [evaluations, 'eval_loss'],
    ] as const) {
      const expected = rows.filter((row) => mark in row);
      expect(table.rows).toBe(expected.length);
      for (const [name, column] of table.columns) {
        expect(column.length).toBe(table.rows);
        for (const [i, row] of expected.entries()) {
          const value = row[name] as number;
          expect(Math.abs(column.at(i) - value)).toBeLessThanOrEqual(Math.abs(value) * 1e-13);
        }
      }
    }
    expect([...steps.columns.keys()]).not.toContain('stream_hash');
  });

  it('however numbers are written', () => {
    const values = [0, -0.5, 1e-7, 1.5e-10, 123456789012345.67, 1e21, 2.5e-300, -3, 0.1 + 0.2, 2 ** 53 + 2];
    const { steps } = parsed(values.map((lr, i) => stepRow(i + 1, { lr })).join(''));
    for (const [i, value] of values.entries()) {
      expect(Math.abs((steps.columns.get('lr')?.at(i) ?? Number.NaN) - value)).toBeLessThanOrEqual(
        Math.abs(value) * 1e-13,
      );
    }
  });

  it('with a mixture, keys that come and go, nulls, and lines that are no rows', () => {
    const mix = (a: number) => ({
      mix: [
        { share: a, epoch: 1 },
        { share: 1 - a, epoch: 2 },
      ],
    });
    const { steps } = parsed(
      stepRow(1, mix(0.25)) +
        stepRow(2, mix(0.5)) +
        '{"broken\n' +
        'null\n\n{"step":"x"}\n' +
        stepRow(3) +
        stepRow(4, { loss: null }) +
        stepRow(5, { mfu: 0.5 }) +
        stepRow(6, mix(0.75)),
    );
    expect(steps.rows).toBe(6);
    const column = (name: string) => [...(steps.columns.get(name)?.values ?? [])];
    expect(column('step')).toEqual([1, 2, 3, 4, 5, 6]);
    expect(column('mix.1.share')).toEqual([0.75, 0.5, Number.NaN, Number.NaN, Number.NaN, 0.25]);
    expect(column('mfu')).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN, 0.5, Number.NaN]);
    expect(column('loss')[3]).toBeNaN();
    expect(column('lr').every(Number.isFinite)).toBe(true);
  });

  it('leaves the line that is not complete for later', () => {
    const parser = new RowParser();
    const text = stepRow(1) + stepRow(2).slice(0, 40);
    expect(parser.push(Buffer.from(text))).toBe(stepRow(1).length);
    expect(parser.steps.rows).toBe(1);
  });
});

describe('curves', () => {
  const table = (losses: readonly number[]) =>
    parsed(losses.map((loss, i) => stepRow(i + 1, { loss })).join('')).steps;
  const window = { axis: 'step', from: null, to: null, points: 50, smooth: 1 } as const;

  it('keep every spike and dip, however many rows a pixel has', () => {
    const losses = Array.from({ length: 10_000 }, () => 2);
    losses[1234] = 99;
    losses[7777] = -5;
    const steps = table(losses);
    const { x, series } = curvesOf(steps, steps.column('step').values, window);
    expect(x.length).toBeLessThanOrEqual(window.points + 2);
    const loss = series.find(({ key }) => key === 'loss');
    expect(Math.max(...(loss?.high ?? []))).toBe(99);
    expect(Math.min(...(loss?.low ?? []))).toBe(-5);
    const at = [...(loss?.high ?? [])].indexOf(99);
    expect(Math.abs((x[at] ?? 0) - 1235)).toBeLessThanOrEqual(10_000 / window.points);
  });

  it('are the rows themselves where there are few', () => {
    const steps = table(Array.from({ length: 1000 }, (_, i) => i / 7));
    const { x, series } = curvesOf(steps, steps.column('step').values, { ...window, from: 100, to: 120 });
    expect([...x]).toEqual(Array.from({ length: 23 }, (_, i) => 99 + i));
    const loss = series.find(({ key }) => key === 'loss');
    expect(loss?.low).toEqual(loss?.high);
    expect(loss?.high[1]).toBeCloseTo(99 / 7, 5);
  });

  it('are smoothed by a mean that is right from the first row, also in a window', () => {
    const steps = table(Array.from({ length: 5000 }, (_, i) => (i < 2500 ? 3 : 1)));
    const xs = steps.column('step').values;
    const smooth = (more: object) =>
      curvesOf(steps, xs, { ...window, smooth: 20, ...more }).series.find(({ key }) => key === 'loss')
        ?.smooth;
    expect(smooth({})?.[0]).toBeCloseTo(3, 6);
    expect(smooth({})?.at(-1)).toBeCloseTo(1, 6);
    const inside = smooth({ from: 2505, to: 2510, points: 500 });
    // From 3 to 1 by (1 − 1/20) a row.
    expect(inside?.[1]).toBeCloseTo(1 + 2 * 0.95 ** 5, 3);
  });

  it('of a run without rows are empty', () => {
    const { steps } = new RowParser();
    expect(curvesOf(steps, steps.column('step').values, window).x.length).toBe(0);
  });
});

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'candlewick-dash-'));
});
afterEach(async () => {
  await rm(root, { recursive: true });
});

describe('a metrics file that is followed', () => {
  it('grows, is cut back by a resume, and is replaced', async () => {
    const path = join(root, 'metrics.jsonl');
    const tail = new MetricsTail(path);
    const last = () => tail.steps.columns.get('loss')?.at(tail.steps.rows - 1);
    expect(await tail.poll()).toBe(false);
    const whole = rowsOf(1, 50, 1000);
    await writeFile(path, whole + stepRow(51).slice(0, 30));
    expect([await tail.poll(), tail.steps.rows]).toEqual([true, 50]);
    await appendFile(path, stepRow(51).slice(30));
    expect([await tail.poll(), tail.steps.rows]).toEqual([true, 51]);
    expect(await tail.poll()).toBe(false);
    // Cut back and shorter than what was read.
    await truncate(path, rowsOf(1, 20, 1000).length);
    expect([await tail.poll(), tail.steps.rows]).toEqual([true, 20]);
    // Cut back and already longer again, with other losses.
    await truncate(path, rowsOf(1, 10, 1000).length);
    await appendFile(path, rowsOf(11, 60, 1000, { loss: 7 }));
    expect([await tail.poll(), tail.steps.rows, last()]).toEqual([true, 60, 7]);
    await rm(path);
    expect([await tail.poll(), tail.steps.rows]).toEqual([true, 0]);
  });
});

/** A request as a browser would not let a page make it. */
async function ask(
  url: string,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<[number, string]> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const sent = request({ hostname, port, path, method, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve([response.statusCode ?? 0, body]));
    });
    sent.on('error', reject).end();
  });
}

describe('the server', () => {
  const run = async (name: string, last = 120) => {
    await mkdir(join(root, name), { recursive: true });
    await writeFile(join(root, name, 'metrics.jsonl'), rowsOf(1, last));
    return join(root, name);
  };
  const open = (roots: string[], options = {}) => Dash.open(roots, { port: 0, ...options });

  it('lists runs and gives their curves over steps, tokens and time', async () => {
    await run('a');
    await run('b', 200);
    await writeFile(
      join(root, 'a', 'config.yaml'),
      'model: {architecture: llama, num_hidden_layers: 2, hidden_size: 64}\ntraining: {max_steps: 500}\n',
    );
    const dash = await open([root]);
    try {
      const runs = (await (await fetch(`${dash.url}api/runs`)).json()) as Record<string, unknown>[];
      expect(runs.map(({ name, rows, live }) => [name, rows, live])).toEqual([
        ['a', 120, false],
        ['b', 200, false],
      ]);
      expect(runs[0]).toMatchObject({ limits: { steps: 500 }, about: 'llama 2 × 64', last: { step: 120 } });
      for (const [axis, end, evaluated] of [
        ['step', 200, 100],
        ['tokens', 200 * 4096, 100 * 4096],
        ['time', 199 * 0.5, 99 * 0.5],
      ] as const) {
        const response = await fetch(`${dash.url}api/curves?run=1&x=${axis}&points=400`);
        const { extent, rows, curves } = decodeCurves(await response.arrayBuffer());
        expect([rows, extent[1]]).toEqual([200, end]);
        const loss = curves.get('loss');
        expect([loss?.x.length, loss?.x.at(-1)]).toEqual([200, end]);
        expect(curves.get('eval_loss')?.x[0]).toBe(evaluated);
      }
    } finally {
      await dash.close();
    }
  });

  it('tells of new rows, new runs and samples as they come', async () => {
    const path = await run('a');
    const dash = await open([root], { pollMs: 20 });
    const stop = new AbortController();
    try {
      const response = await fetch(`${dash.url}api/events`, { signal: stop.signal });
      const told: { name: string; rows: number; samples: number }[] = [];
      const reader = (response.body as ReadableStream<Uint8Array>).getReader();
      let text = '';
      const until = async (done: () => boolean) => {
        while (!done()) {
          const { value } = await reader.read();
          text += Buffer.from(value ?? []).toString();
          for (let end = text.indexOf('\n\n'); end !== -1; end = text.indexOf('\n\n')) {
            const data = /^data: (.*)$/m.exec(text.slice(0, end))?.[1];
            if (data !== undefined) told.push(...(JSON.parse(data) as typeof told));
            text = text.slice(end + 2);
          }
        }
      };
      await until(() => told.some(({ rows }) => rows === 120));
      await appendFile(join(path, 'metrics.jsonl'), rowsOf(121, 130));
      await until(() => told.some(({ name, rows }) => name === 'a' && rows === 130));
      await run('later', 10);
      await until(() => told.some(({ name, rows }) => name === 'later' && rows === 10));
      await writeFile(join(path, 'samples.md'), '## Step 100\n');
      await until(() => told.some(({ name, samples }) => name === 'a' && samples > 0));
      expect(await (await fetch(`${dash.url}api/samples?run=0`)).text()).toBe('## Step 100\n');
    } finally {
      stop.abort();
      await dash.close();
    }
  });

  it('answers to this machine only, and with nothing but its page', async () => {
    await run('a');
    await writeFile(join(root, 'secret'), 'secret');
    const dash = await open([root]);
    try {
      for (const host of ['localhost', '127.0.0.1:1', '[::1]:8080'])
        expect((await ask(dash.url, '/', { host }))[0]).toBe(200);
      for (const host of ['evil.example', 'localhost.evil.example:6007', '192.168.1.5', '127.0.0.1.nip.io']) {
        const [status, body] = await ask(dash.url, '/api/runs', { host });
        expect([status, body.includes('ssh -L')]).toEqual([403, true]);
      }
      expect(
        (await ask(dash.url, '/api/runs', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'cors' }))[0],
      ).toBe(403);
      expect(
        (await ask(dash.url, '/', { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' }))[0],
      ).toBe(200);
      for (const path of [
        '/../secret',
        '/..%2fsecret',
        '//etc/passwd',
        '/page/../server.js',
        '/index.html',
        '/__proto__',
        '/api/samples?run=../secret',
        '/api/curves?run=-1',
        '/api/curves?run=1e9',
        '/api/curves?run=constructor',
      ]) {
        const [status, body] = await ask(dash.url, path);
        expect([path, status, body.includes('secret')]).toEqual([path, 404, false]);
      }
      expect((await ask(dash.url, '/api/curves?run=0&x=loss'))[0]).toBe(400);
      expect((await ask(dash.url, '/', {}, 'POST'))[0]).toBe(405);
      const { headers } = await fetch(dash.url);
      expect(headers.get('content-security-policy')).toMatch(/^default-src 'self';/);
      expect(headers.get('access-control-allow-origin')).toBeNull();
    } finally {
      await dash.close();
    }
  });

  it('shows the other runs where one cannot be read, and says why', async () => {
    await run('good');
    await mkdir(join(root, 'bad', 'metrics.jsonl'), { recursive: true });
    await writeFile(join(root, 'bad', 'config.yaml'), '{broken');
    const dash = await open([root]);
    try {
      const runs = (await (await fetch(`${dash.url}api/runs`)).json()) as Record<string, unknown>[];
      expect(runs).toMatchObject([
        { name: 'bad', rows: 0, problem: expect.stringContaining('EISDIR') as string },
        { name: 'good', rows: 120, problem: null },
      ]);
    } finally {
      await dash.close();
    }
  });

  it('takes the next port, or says that the named one is in use', async () => {
    await run('a');
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const { port } = other.address() as AddressInfo;
    try {
      await expect(open([root], { port })).rejects.toMatchObject({
        code: 'USAGE',
        message: expect.stringContaining(String(port)) as string,
        hint: expect.stringContaining('--port') as string,
      });
      const [first, second] = [await open([root], { port: null }), await open([root], { port: null })];
      expect(first.url).not.toBe(second.url);
      await Promise.all([first.close(), second.close()]);
    } finally {
      other.close();
    }
  });

  it('refuses a directory without a run', async () => {
    for (const path of [root, join(root, 'nowhere')]) {
      await expect(open([path])).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringContaining(path) as string,
      });
    }
  });
});

it('evaluation rows carry the keys that the page draws', () => {
  expect([...parsed(evalRow(5)).evaluations.columns.keys()]).toEqual([
    'step',
    'eval_loss',
    'bits_per_byte',
    'time',
  ]);
});
