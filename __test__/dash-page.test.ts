/// <reference lib="dom" />
/** The page in a real Chromium: curves of a live run, zoom, values, light and dark, a million rows. */
import { createWriteStream, mkdirSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { once } from 'node:events';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Dash } from '../src/dash/index.js';
import { findChromium } from './support/chromium.js';
import { lossAt, rowsOf } from './support/metrics.js';

const found = findChromium();
/** Pictures of what the tests saw, to be looked at. */
const pictures = fileURLToPath(new URL('../artifacts/dash', import.meta.url));

describe.skipIf(found === null)(found === null ? 'the page (no chromium in PATH)' : 'the page', () => {
  let browser: Browser;
  let root: string;
  let dash: Dash;
  let shown: Page | null = null;
  const problems: string[] = [];
  const requests: string[] = [];

  beforeAll(async () => {
    mkdirSync(pictures, { recursive: true });
    // Chromium's sandbox does not start as root, which CI and containers are.
    const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
    browser = await chromium.launch({ executablePath: found as string, args });
  });
  afterAll(async () => {
    await browser.close();
  });
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'candlewick-page-'));
    problems.length = 0;
    requests.length = 0;
  });
  afterEach(async () => {
    await shown?.close();
    await dash.close();
    await rm(root, { recursive: true });
  });

  const makeRun = async (name: string, rows: string, more: Record<string, string> = {}) => {
    await mkdir(join(root, name), { recursive: true });
    await writeFile(join(root, name, 'metrics.jsonl'), rows);
    for (const [file, text] of Object.entries(more)) await writeFile(join(root, name, file), text);
    return join(root, name);
  };

  const show = async (colorScheme: 'light' | 'dark' = 'light', more: object = {}): Promise<Page> => {
    dash = await Dash.open([root], { port: 0, pollMs: 50 });
    const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, colorScheme, ...more });
    shown = page;
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') problems.push(message.text());
    });
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('request', (request) => requests.push(request.url()));
    await page.goto(dash.url);
    await drawn(page);
    return page;
  };

  /** Waits until everything that was asked for is drawn. */
  const drawn = (page: Page) =>
    page.waitForFunction(() => document.documentElement.dataset['busy'] === 'false');

  /** Pixels of a chart that have a colour of its own (not grey), in a part of its width. */
  const inked = (page: Page, metric: string, from = 0, to = 1) =>
    page.locator(`[data-metric="${metric}"] canvas`).evaluate(
      (canvas, [left, right]) => {
        const { width, height } = canvas as HTMLCanvasElement;
        const x = Math.floor(width * (left as number));
        const w = Math.max(1, Math.floor(width * (right as number)) - x);
        const { data } = (canvas as HTMLCanvasElement).getContext('2d')!.getImageData(x, 0, w, height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4) {
          const [r, g, b, a] = [data[i]!, data[i + 1]!, data[i + 2]!, data[i + 3]!];
          if (a > 100 && Math.max(r, g, b) - Math.min(r, g, b) > 60) count++;
        }
        return count;
      },
      [from, to],
    );

  it('draws the curves of a run that is live, and goes on when rows arrive', async () => {
    const run = await makeRun('first', rowsOf(1, 300), {
      'run.lock': JSON.stringify({ pid: process.pid, host: hostname(), started: null }),
      'config.yaml':
        'training: {max_steps: 1000}\nmodel: {architecture: qwen3, num_hidden_layers: 8, hidden_size: 256}\n',
      'samples.md':
        '## Step 200\n\nPrompt:\n\n    The\n\nText:\n\n     old mill <b>stood</b>\n    by the river.\n\n',
    });
    const page = await show();
    const metrics = await page
      .locator('.chart')
      .evaluateAll((charts) => charts.map((chart) => (chart as HTMLElement).dataset['metric']));
    expect(metrics).toEqual([
      'loss',
      'bits_per_byte',
      'lr',
      'grad_norm',
      'tokens_per_second',
      'data_wait',
      'memory',
      'samples_per_second',
    ]);
    for (const metric of metrics) expect(await inked(page, metric as string)).toBeGreaterThan(50);
    expect(await page.locator('.run').innerText()).toMatch(/live[\s\S]*step 300 \/ 1,000/);
    expect(await page.locator('.sample pre').innerText()).toBe('The old mill <b>stood</b>\nby the river.');

    await appendFile(join(run, 'metrics.jsonl'), rowsOf(301, 700));
    await page.waitForFunction(() => document.querySelector('.run')?.textContent?.includes('step 700'));
    // The chart's description ends with the newest value.
    await page.waitForFunction(
      (value) => document.querySelector('[data-metric="loss"] canvas')?.ariaLabel?.includes(value) === true,
      Math.fround(lossAt(700)).toFixed(4),
    );
    await page.screenshot({ path: join(pictures, 'live-light.png'), fullPage: true });

    // A resume cuts the file back: the page follows.
    await writeFile(join(run, 'metrics.jsonl'), rowsOf(1, 400));
    await page.waitForFunction(() => document.querySelector('.run')?.textContent?.includes('step 400'));
    expect(problems).toEqual([]);
    expect(requests.filter((url) => !url.startsWith(dash.url))).toEqual([]);
  });

  it('lays runs over each other, shows values under the cursor, zooms, and hides a run', async () => {
    await makeRun('one', rowsOf(1, 2000));
    await makeRun('two', rowsOf(1, 1500, 100, { loss: 5 }));
    const page = await show('dark');
    const canvas = page.locator('[data-metric="loss"] canvas');
    const box = (await canvas.boundingBox())!;
    await page.mouse.move(box.x + box.width / 2, box.y + 80);
    const tip = page.locator('[data-metric="loss"] .tip');
    await tip.waitFor();
    expect(await tip.innerText()).toMatch(/^step [\d,]+\n[\s\S]*one, training[\s\S]*two, training\n5\.0000/);
    // The crosshair is in every chart.
    expect(await page.locator('[data-metric="lr"] .tip').isVisible()).toBe(true);
    await page.screenshot({ path: join(pictures, 'two-dark.png'), fullPage: true });

    const after = async (action: () => Promise<unknown>) => {
      await action();
      await drawn(page);
    };
    await after(async () => {
      await page.mouse.move(box.x + box.width * 0.9, box.y + 80);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.98, box.y + 90, { steps: 4 });
      await page.mouse.up();
    });
    // Only the first run reaches so far.
    expect(await page.locator('#reset').isVisible()).toBe(true);
    await page.mouse.move(box.x + box.width / 2, box.y + 80);
    expect(await tip.innerText()).toMatch(/^step 1,9\d\d/);
    expect(await tip.innerText()).not.toContain('two');
    await after(() => page.locator('#reset').click());
    expect(await page.locator('#reset').isVisible()).toBe(false);

    await after(() => page.getByRole('button', { name: /^two/ }).click());
    await page.mouse.move(box.x + box.width / 2 + 3, box.y + 80);
    expect(await tip.innerText()).not.toContain('two');
    await after(() => page.locator('[data-axis="tokens"]').click());
    await page.mouse.move(box.x + box.width / 2, box.y + 80);
    expect(await tip.innerText()).toMatch(/^[\d.]+M tokens/);
    await after(() => page.locator('#smooth').fill('20'));
    expect(await page.locator('#smooth-value').innerText()).toBe('125 rows');
    await page.locator('[data-metric="loss"] button', { hasText: 'log' }).click();
    expect(await inked(page, 'loss')).toBeGreaterThan(50);
    // What was chosen is remembered.
    await page.reload();
    await drawn(page);
    expect(await page.locator('[data-axis="tokens"]').getAttribute('aria-pressed')).toBe('true');
    expect(
      await page.locator('[data-metric="loss"] button', { hasText: 'log' }).getAttribute('aria-pressed'),
    ).toBe('true');
    expect(problems).toEqual([]);
  });

  it('fits a telephone', async () => {
    await makeRun('one', rowsOf(1, 500));
    const page = await show('light', { viewport: { width: 390, height: 800 } });
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(390);
    await page.screenshot({ path: join(pictures, 'narrow-light.png'), fullPage: true });
  });

  it('says that it lost its server, and waits for a first step', async () => {
    await mkdir(join(root, 'new'));
    await writeFile(join(root, 'new', 'config.yaml'), 'training: {max_steps: 10}\n');
    const page = await show();
    expect(await page.locator('#charts').innerText()).toBe('Waiting for the first step.');
    await dash.close();
    await page.waitForFunction(() =>
      document.querySelector('#connection')?.textContent?.includes('not running'),
    );
  });

  it('draws a million rows, and keeps their one spike', async () => {
    const path = join(await makeRun('long', ''), 'metrics.jsonl');
    const out = createWriteStream(path);
    const rows = 1_000_000;
    const chunk = 10_000;
    for (let first = 1; first <= rows; first += chunk) {
      const text = rowsOf(first, first + chunk - 1, 50_000).replace(
        /("step":777777,"loss":)[\d.]+/,
        '$142.5',
      );
      if (!out.write(text)) await once(out, 'drain');
    }
    out.end();
    await once(out, 'finish');
    const page = await show();
    expect(await page.locator('.run').innerText()).toContain('1,000,000');
    // The spike is a single row: above all others by far, at its place.
    const box = (await page.locator('[data-metric="loss"] canvas').boundingBox())!;
    const share = (58 + (777_777 / rows) * (box.width - 70)) / box.width;
    const spike = await inkedTop(page, share - 0.01, share + 0.01);
    expect(spike).toBeGreaterThan(20);
    await page.screenshot({ path: join(pictures, 'million-light.png') });
  });

  /** Coloured pixels in the upper half of the loss chart, between two shares of its width. */
  const inkedTop = (page: Page, from: number, to: number) =>
    page.locator('[data-metric="loss"] canvas').evaluate(
      (canvas, [left, right]) => {
        const { width, height } = canvas as HTMLCanvasElement;
        const x = Math.floor(width * (left as number));
        const w = Math.ceil(width * (right as number)) - x;
        const { data } = (canvas as HTMLCanvasElement)
          .getContext('2d')!
          .getImageData(x, 0, w, Math.floor(height / 2));
        let count = 0;
        for (let i = 0; i < data.length; i += 4) {
          const [r, g, b] = [data[i]!, data[i + 1]!, data[i + 2]!];
          if (Math.max(r, g, b) - Math.min(r, g, b) > 60) count++;
        }
        return count;
      },
      [from, to],
    );
});
