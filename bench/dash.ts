/**
 * How long `candlewick dash` takes to open a long run and to answer what the page asks.
 *
 *     node --import ./scripts/typescript.mjs bench/dash.ts [rows]
 */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Dash } from '../src/dash/index.js';
import { rowsOf } from '../__test__/support/metrics.js';

const rows = Number(process.argv[2] ?? 1_000_000);
const root = await mkdtemp(join(tmpdir(), 'candlewick-dash-bench-'));
try {
  const run = join(root, 'run');
  await mkdir(run);
  const path = join(run, 'metrics.jsonl');
  const out = createWriteStream(path);
  for (let first = 1; first <= rows; first += 10_000) {
    if (!out.write(rowsOf(first, Math.min(rows, first + 9_999), 10_000))) await once(out, 'drain');
  }
  out.end();
  await once(out, 'finish');
  console.log(`${rows.toLocaleString('en-US')} rows, ${((await stat(path)).size / 1e6).toFixed(0)} MB`);

  const measure = async <T>(name: string, action: () => Promise<T>): Promise<T> => {
    const [clock, before] = [performance.now(), process.cpuUsage()];
    const result = await action();
    const { user, system } = process.cpuUsage(before);
    const seconds = (performance.now() - clock) / 1000;
    console.log(
      `${name}: ${seconds.toFixed(3)} s by the clock, ${((user + system) / 1e6).toFixed(3)} s of processor`,
    );
    return result;
  };
  const dash = await measure('open', () => Dash.open([run], { port: 0 }));
  const ask = async (query: string) => {
    const response = await fetch(`${dash.url}api/curves?run=0&points=800&${query}`);
    return (await response.arrayBuffer()).byteLength;
  };
  for (const query of [
    'x=step',
    'x=step&smooth=1000',
    'x=tokens',
    `x=step&from=${rows * 0.4}&to=${rows * 0.6}`,
  ]) {
    const bytes = await measure(query, () => ask(query));
    console.log(`  ${(bytes / 1e3).toFixed(0)} kB`);
  }
  console.log(`resident: ${(process.memoryUsage.rss() / 1e6).toFixed(0)} MB`);
  await dash.close();
} finally {
  await rm(root, { recursive: true });
}
