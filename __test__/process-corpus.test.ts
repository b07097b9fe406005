/** ProcessStreamingCorpus and the JSON lines that its programs speak; every program is written here. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ProcessCorpusOptions, ProcessStreamingCorpus } from '../src/corpus/index.js';
import { python, repository } from './support/python.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'candlewick-process-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Event = Parameters<NonNullable<ProcessCorpusOptions['onEvent']>>[0];

/** A corpus over a command, and what it told. */
function corpusOf(command: string[], options: ProcessCorpusOptions = {}) {
  const events: Event[] = [];
  const corpus = new ProcessStreamingCorpus(command, {
    restartDelay: 0.001,
    ...options,
    onEvent: (event) => {
      events.push(event);
      options.onEvent?.(event);
    },
  });
  return Object.assign(corpus, { events });
}

const shell = (script: string, options?: ProcessCorpusOptions) =>
  corpusOf(['/bin/sh', '-c', script, 'sh'], options);
const script = (code: string, args: string[] = [], options?: ProcessCorpusOptions) =>
  corpusOf([python, '-c', code, ...args], options);

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

const failure = (corpus: ProcessStreamingCorpus) =>
  collect(corpus.stream()).then(
    () => Promise.reject(new Error('it did not fail')),
    (error: unknown) => error as { code: string; message: string; hint: string },
  );

const isAlive = (pid: number) => existsSync(`/proc/${pid}`);
async function isGone(pid: number): Promise<void> {
  // A process of another parent tells nobody here that it ends; `tail` waits for exactly that.
  await once(spawn('tail', [`--pid=${pid}`, '-s', '0.05', '-f', '/dev/null']), 'exit');
}

/** Documents numbered from CANDLEWICK_POSITION or 0, a few a line; dies where it is told, once for each mark. */
const counting = `
import json, os, signal, sys
folder, count, positions, *deaths = sys.argv[1:]
at = json.loads(os.environ.get("CANDLEWICK_POSITION", '{"next": 0}'))["next"]
with open(folder + "/starts", "a") as log:
    print(at, file=log)
def say(line):
    sys.stdout.write(json.dumps(line) + "\\n")
say({"status": "loading"}); say({"status": "ready"})
total = 0
while at < int(count):
    texts = ["document %d %s" % (n, "x" * (n % 97)) for n in range(at, min(at + 3, int(count)))]
    at += len(texts); total += len(texts)
    line = {"batch": texts}
    if positions == "yes":
        line["position"] = {"next": at}
    for death in deaths:
        mark = folder + "/died-" + death
        if at >= int(death) and not os.path.exists(mark):
            open(mark, "w").close()
            # Half a line goes with it.
            sys.stdout.write(json.dumps(line)[:7]); sys.stdout.flush()
            print("last words", file=sys.stderr); sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    say(line)
say({"done": True, "total": total})
`;
const counted = (count: number) =>
  Array.from({ length: count }, (_, n) => `document ${n} ${'x'.repeat(n % 97)}`);
const starts = async (place: string) =>
  (await readFile(join(place, 'starts'), 'utf8')).trim().split('\n').map(Number);
const place = () => mkdtemp(join(folder, 'place-'));

describe('a program', () => {
  it('of a few lines of shell is a corpus', async () => {
    await using corpus = shell(`echo '{"status":"loading"}'; echo '{"status":"ready"}'
echo '{"progress":1}' >&2; echo 'for people' >&2
echo '{"batch":["first","",null,"second"],"mine":1}'; echo; echo '{"batch":[]}'
printf '{"batch":["th\\\\u0069rd \\\\ud83d\\\\udd6f \\\\ud800"]}\\r\\n{"done":true,"total":3}'`);
    expect(await collect(corpus.stream())).toEqual(['first', 'second', 'third 🕯 \uFFFD']);
    expect(await collect(corpus.batches())).toEqual([['first', 'second', 'third 🕯 \uFFFD']]);
    expect(corpus.events.filter(({ type }) => type !== 'notice').slice(0, 3)).toEqual(
      expect.arrayContaining([
        { type: 'progress', value: 1 },
        { type: 'loading', phase: 'program', seconds: expect.any(Number) },
        { type: 'ready', seconds: expect.any(Number) },
      ]),
    );
    expect(corpus.events).toContainEqual({
      type: 'notice',
      message: expect.stringContaining('not Unicode'),
    });
  });

  it('runs in cwd with env, and without a position of somebody else', async () => {
    await using corpus = shell(
      `echo "{\\"batch\\":[\\"$PWD\\",\\"$MINE\\",\\"<$CANDLEWICK_POSITION>\\"]}"; echo '{"done":true,"total":3}'`,
      { cwd: folder, env: { ...process.env, MINE: 'yes', CANDLEWICK_POSITION: '7' } },
    );
    expect(await collect(corpus.stream())).toEqual([folder, 'yes', '<>']);
  });

  it('runs once an epoch, and maxSamples counts over epochs', async () => {
    const at = await place();
    await using corpus = script(counting, [at, '7', 'yes'], { epochs: 3, maxSamples: 17 });
    expect(await collect(corpus.stream())).toEqual(
      [...counted(7), ...counted(7), ...counted(7)].slice(0, 17),
    );
    expect(await starts(at)).toEqual([0, 0, 0]);
  });

  it('is ended by leaving the stream early, and others run beside it', async () => {
    const at = await place();
    await using corpus = script(counting, [at, '1000000', 'yes']);
    let pid = 0;
    for await (const text of corpus.stream()) {
      expect(text).toBe('document 0 ');
      pid = corpus.pids[0] as number;
      const other = corpus.stream();
      expect(await other.next()).toEqual({ value: 'document 0 ', done: false });
      expect(corpus.pids.length).toBe(2);
      await other.return();
      break;
    }
    await corpus.close();
    expect(isAlive(pid)).toBe(false);
    await expect(collect(corpus.stream())).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('that ignores SIGTERM is killed, and what it started with it', async () => {
    await using corpus = shell(
      `trap '' TERM; sleep 1000 & echo "{\\"batch\\":[\\"$!\\",\\"$$\\"]}"; while :; do sleep 1000; done`,
    );
    const stream = corpus.stream();
    const child = Number((await stream.next()).value);
    expect(isAlive(child)).toBe(true);
    const [pid] = corpus.pids as [number];
    await stream.return();
    await corpus.close();
    expect(isAlive(pid)).toBe(false);
    await isGone(child);
  });

  it('ends when its signal is aborted', async () => {
    const controller = new AbortController();
    await using corpus = shell(`echo '{"batch":["a"]}'; exec sleep 1000`, { signal: controller.signal });
    const stream = corpus.stream();
    await stream.next();
    controller.abort();
    await expect(stream.next()).rejects.toMatchObject({ code: 'ABORTED' });
    await corpus.close();
    expect(corpus.pids).toEqual([]);
  });

  it.each(['SIGKILL', 'SIGINT'] as const)(
    'does not outlive a parent that ends by %s',
    async (signal) => {
      const file = join(folder, 'parent.mjs');
      await writeFile(
        file,
        `import { ProcessStreamingCorpus } from ${JSON.stringify(join(repository, 'dist/index.js'))};
const corpus = new ProcessStreamingCorpus(['/bin/sh', '-c', 'echo "{\\\\"batch\\\\":[\\\\"$$\\\\"]}"; exec sleep 1000']);
for await (const pid of corpus.stream()) console.log(pid);`,
      );
      const parent = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
      const [line] = (await once(parent.stdout, 'data')) as [Buffer];
      const pid = Number(line);
      expect(isAlive(pid)).toBe(true);
      parent.kill(signal);
      await isGone(pid);
    },
    30_000,
  );
});

describe('a program that dies', () => {
  it('goes on at its last position, and nothing comes twice', async () => {
    const at = await place();
    await using corpus = script(counting, [at, '5000', 'yes', '10', '1500', '1503', '4000']);
    expect(await collect(corpus.stream())).toEqual(counted(5000));
    expect(await starts(at)).toEqual([0, 9, 1497, 1500, 3999]);
    expect(corpus.events.find(({ type }) => type === 'restart')).toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringContaining('SIGKILL'),
    });
    expect(corpus.events.filter(({ type }) => type === 'notice')).toEqual([]);
  });

  it('without positions runs from its start again, and says so', async () => {
    const at = await place();
    await using corpus = script(counting, [at, '5000', 'no', '10', '1500']);
    expect(await collect(corpus.stream())).toEqual(counted(5000));
    expect(await starts(at)).toEqual([0, 0, 0]);
    expect(corpus.events.filter(({ type }) => type === 'notice')).toEqual([
      { type: 'notice', message: expect.stringMatching(/names no position.*first 9 documents/) },
      { type: 'notice', message: expect.stringMatching(/first 1,\d+ documents are passed over/) },
    ]);
  });

  it('at the same place every time is given up, with what it wrote', async () => {
    await using corpus = shell(`[ -n "$CANDLEWICK_POSITION" ] || echo '{"batch":["a"],"position":1}'
echo 'last words' >&2; exit 3`);
    expect(await failure(corpus)).toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringMatching(/exited with code 3; it wrote:\n {2}last words/),
    });
    expect(corpus.events.map(({ type }) => type)).toEqual(['restart', 'restart', 'restart']);
  });

  it('before it brought anything fails at once', async () => {
    await using corpus = shell(`echo 'no such file' >&2; exit 2`);
    expect(await failure(corpus)).toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringMatching(/code 2.*\n.*no such file/),
    });
    expect(corpus.events).toEqual([]);
    await using missing = corpusOf(['/does/not/exist']);
    expect(await failure(missing)).toMatchObject({
      code: 'STREAMER_CRASHED',
      message: expect.stringMatching(/cannot be started.*ENOENT/),
    });
  });

  it('after it is done has done its work', async () => {
    await using corpus = shell(`echo '{"batch":["a"]}'; echo '{"done":true,"total":1}'; exit 9`);
    expect(await collect(corpus.stream())).toEqual(['a']);
    expect(corpus.events).toContainEqual({ type: 'notice', message: expect.stringMatching(/code 9 after/) });
  });

  it('not, after it is done, is ended', async () => {
    await using corpus = shell(`echo '{"batch":["a"]}'; echo '{"done":true,"total":1}'; exec sleep 1000`, {
      silence: 0.3,
      epochs: 2,
      maxSamples: 2,
    });
    expect(await collect(corpus.stream())).toEqual(['a', 'a']);
    expect(corpus.events.map(({ type }) => type)).toEqual(['notice']);
  });

  it('or is silent is killed and goes on; a slow one that tells its progress is not', async () => {
    const at = await place();
    await using corpus = shell(
      `if [ -z "$CANDLEWICK_POSITION" ]; then echo '{"batch":["a"],"position":[1]}'; exec sleep 1000; fi
echo "{\\"batch\\":[\\"after $CANDLEWICK_POSITION\\"]}"; echo '{"done":true,"total":1}'`,
      { silence: 1, cwd: at },
    );
    expect(await collect(corpus.stream())).toEqual(['a', 'after [1]']);
    expect(corpus.events.find(({ type }) => type === 'restart')).toMatchObject({ code: 'STREAMER_TIMEOUT' });
    await using slow = shell(
      `for i in 1 2 3 4 5 6 7 8; do echo "{\\"progress\\":$i}" >&2; sleep 0.3; done
echo '{"batch":["late"]}'; echo '{"done":true,"total":1}'`,
      { silence: 1.5 },
    );
    expect(await collect(slow.stream())).toEqual(['late']);
    expect(slow.events.some(({ type }) => type === 'restart')).toBe(false);
  });

  it('by silence every time is given up', async () => {
    await using corpus = shell(`echo 'thinking' >&2; exec sleep 1000`, { silence: 0.3 });
    expect(await failure(corpus)).toMatchObject({
      code: 'STREAMER_TIMEOUT',
      message: expect.stringMatching(/wrote nothing for 0.3 s; it wrote:\n {2}thinking/),
      hint: expect.stringContaining('silence'),
    });
    expect(corpus.events.filter(({ type }) => type === 'restart').length).toBe(3);
  });
});

describe('a program that breaks the protocol', () => {
  it.each([
    [
      'a malformed line',
      `echo '{"batch":["a"]}'; echo 'oops' >&2; sleep 0; echo 'hello world'; exec sleep 1000`,
      /^line 2 of .* cannot be read.*: hello world/,
    ],
    [
      'a wrong type',
      `echo '{"batch":["a",7]}'`,
      /^line 1 of .*integer `7`, expected a text or null.*\{"batch":\["a",7\]\}/,
    ],
    [
      'a batch after done',
      `echo '{"done":true,"total":0}'; sleep 0.2; echo '{"batch":["a"]}'`,
      /^line 2 of .*comes after done/,
    ],
    [
      'a total that is not so',
      `echo '{"batch":["a",""]}'; echo '{"done":true,"total":2}'`,
      /total is 2, but 1 texts came/,
    ],
    [
      'no end',
      `echo '{"batch":["a"]}'; echo 'bye' >&2`,
      /ended without saying that it is done; it wrote:\n {2}bye/,
    ],
    ['half a line at its end', `printf '{"batch":["a"'`, /^line 1 of .*EOF/],
  ])('by %s is refused', async (_, code, message) => {
    await using corpus = shell(code);
    expect(await failure(corpus)).toMatchObject({
      code: 'PROTOCOL_VIOLATION',
      message: expect.stringMatching(message),
    });
    expect(corpus.events.some(({ type }) => type === 'restart')).toBe(false);
  });

  it('says what it wrote to stderr', async () => {
    await using corpus = shell(
      `i=0; while [ $i -lt 300 ]; do echo "line $i" >&2; i=$((i+1)); done; exec 2>&-; echo '{'`,
    );
    const { message } = await failure(corpus);
    expect(message).toContain('line 299');
    expect(message).not.toContain('line 99\n');
  });
});

describe('backpressure', () => {
  it('holds a program that would write without end', async () => {
    // Says how much it has written when its pipe has been full for a second.
    const code = `
import json, os, select, sys
line = (json.dumps({"batch": ["x" * 1000] * 100}) + "\\n").encode()
written = 0
while written < 500_000_000:
    for start in range(0, len(line), 4096):
        while not select.select([], [1], [], 1)[1]:
            print(json.dumps({"progress": written}), file=sys.stderr, flush=True)
        written += os.write(1, line[start:start + 4096])
`;
    let hear: (value: number) => void = () => {};
    await using corpus = script(code, [], {
      onEvent: (event) => event.type === 'progress' && hear(event.value),
    });
    const stream = corpus.stream();
    for (const documents of [1, 50_000]) {
      const held = new Promise<number>((resolve) => {
        hear = resolve;
      });
      for (let i = 0; i < documents; i++) expect((await stream.next()).done).toBe(false);
      // A few turns ahead of what was taken, and no more however long it may wait.
      expect(await held).toBeLessThan(1000 * documents + 10_000_000);
    }
    await stream.return();
  });
});

it('refuses options that make no sense', () => {
  for (const command of [[], [''], ['a', 1], 'ls']) {
    expect(() => new ProcessStreamingCorpus(command as string[])).toThrow(
      expect.objectContaining({ code: 'USAGE' }),
    );
  }
  for (const options of [{ silence: 0 }, { epochs: -1 }, { batchSize: 0 }, { maxSamples: 1.5 }]) {
    expect(() => new ProcessStreamingCorpus(['true'], options)).toThrow(
      expect.objectContaining({ code: 'USAGE' }),
    );
  }
});
