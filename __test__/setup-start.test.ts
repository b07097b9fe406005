/** What a newcomer sees whose machine lacks something: `npm start` and `npm test` before anything is installed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { run } from '../src/setup/run.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'candlewick-start-'));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

function fake(name: string, script: string): void {
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
}

function fakePython(version: [number, number, number], missing: string[] = []): void {
  fake('python3', `echo '${JSON.stringify({ version, executable: '/fake/python3', missing })}'`);
}

/** Fakes of every tool, all of them good. */
function everything(): void {
  fake('cargo', 'echo "cargo 1.95.0 (0000000 2026-01-01)"');
  fake('cc', 'echo "cc 12.2.0"');
  fakePython([3, 12, 1]);
}

/** Runs a script of ours where PATH holds nothing but the fakes. */
function start(script: string, env: NodeJS.ProcessEnv = {}) {
  return run(process.execPath, [join(root, 'scripts', script)], {
    cwd: root,
    env: { PATH: folder, NO_COLOR: '1', HOME: folder, ...env },
  });
}

describe.each(['start.mjs', 'test.mjs'])('%s', (script) => {
  it('names every missing tool at once, each with its cure, and does nothing', async () => {
    const { code, output } = await start(script);
    expect(code).toBe(3);
    expect(output).toContain('error: no cargo on PATH: the Rust core cannot be built');
    expect(output).toContain('hint: install Rust:');
    expect(output).toContain('error: no C compiler (cc): the Rust core cannot be linked');
    expect(output).toContain('error: no python3 on PATH');
    expect(output).not.toContain('npm ci');
  });

  it('says so on an old Node', async () => {
    const old = join(folder, 'old.cjs');
    writeFileSync(
      old,
      `Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.4' } });`,
    );
    const { code, output } = await start(script, { NODE_OPTIONS: `--require=${old}` });
    expect(code).toBe(3);
    expect(output).toContain('error: this is Node 18.20.4; candlewick needs 20.17.0 or newer');
    expect(output).toContain('hint: install a newer one');
  });
});

describe('one thing is missing', () => {
  beforeEach(everything);

  async function onlyError(env: NodeJS.ProcessEnv = {}): Promise<string> {
    const { code, output } = await start('start.mjs', env);
    expect(code).toBe(3);
    expect(output.match(/^error: /gm)).toHaveLength(1);
    return output;
  }

  it('a compiler: with apt, the line that installs it', async () => {
    rmSync(join(folder, 'cc'));
    fake('apt-get', '');
    const output = await onlyError();
    expect(output).toContain('no C compiler');
    if (process.platform === 'linux')
      expect(output).toMatch(/hint: (sudo )?apt-get install -y build-essential/);
  });

  it('the compiler that CC names', async () => {
    expect(await onlyError({ CC: 'no-such-compiler' })).toContain('no C compiler (no-such-compiler)');
  });

  it('the toolchain behind rustup', async () => {
    fake('cargo', `echo "error: toolchain '1.95.0' is not installed" >&2; exit 1`);
    const output = await onlyError();
    expect(output).toContain("cargo does not start: error: toolchain '1.95.0' is not installed");
    expect(output).toMatch(/hint: install the toolchain: rustup toolchain install \d+\.\d+/);
  });

  it('a cargo that is new enough', async () => {
    fake('cargo', 'echo "cargo 1.63.0"');
    expect(await onlyError()).toMatch(
      /error: cargo is 1\.63\.0; \d+\.\d+ or newer is needed\nhint: rustup update/,
    );
  });

  it('a Python that is new enough', async () => {
    fakePython([3, 8, 10]);
    expect(await onlyError()).toContain('error: python3 is Python 3.8.10; 3.10 or newer is needed');
  });

  it('the module venv', async () => {
    fakePython([3, 11, 2], ['venv', 'ensurepip']);
    expect(await onlyError()).toContain('has no module venv and no ensurepip');
  });
});

describe('a clone of its own', () => {
  let clone: string;

  // The scripts and what they read, beside sources that are quick to build: npm, tsc and cargo are stand-ins that
  // write down what they were asked.
  beforeEach(() => {
    everything();
    clone = join(folder, 'clone');
    for (const path of ['src/corpus', 'crates', 'bin']) mkdirSync(join(clone, path), { recursive: true });
    for (const path of ['scripts', 'src/setup'])
      cpSync(join(root, path), join(clone, path), { recursive: true });
    writeFileSync(join(clone, 'src/corpus/requirements.txt'), '# nothing\n');
    writeFileSync(join(clone, 'src/corpus/streamer.py'), 'print("stream")\n');
    writeFileSync(join(clone, 'package-lock.json'), '{}\n');
    writeFileSync(join(clone, 'rust-toolchain.toml'), '[toolchain]\nchannel = "1.95.0"\n');
    writeFileSync(join(clone, 'Cargo.toml'), '[workspace.package]\nrust-version = "1.88"\n');
    writeFileSync(join(clone, 'bin/candlewick.js'), `console.log(process.argv.slice(2).join(' '));\n`);
    writeFileSync(
      join(folder, 'npm.cjs'),
      `const { mkdirSync, writeFileSync, appendFileSync } = require('node:fs');
       const write = (path, text) => {
         mkdirSync(require('node:path').dirname(path), { recursive: true });
         writeFileSync(path, text);
       };
       appendFileSync('asked.txt', 'npm ' + process.argv.slice(2).join(' ') + '\\n');
       if (process.env.NPM_FAILS) { console.error('npm error network'); process.exit(1); }
       write('node_modules/.package-lock.json', '{}');
       write('node_modules/typescript/bin/tsc', \`
         require('node:fs').appendFileSync('asked.txt', 'tsc\\\\n');
         require('node:fs').mkdirSync('dist', { recursive: true });
         require('node:fs').writeFileSync('dist/index.js', '');
       \`);
       write('node_modules/@napi-rs/cli/dist/cli.js', \`
         const { appendFileSync, writeFileSync } = require('node:fs');
         appendFileSync('asked.txt', 'napi ' + process.argv.slice(2).join(' ') + '\\\\n');
         if (process.env.NAPI_WAITS) { console.log('Compiling'); setInterval(() => {}, 1000); }
         else writeFileSync('dist/native/candlewick.test.node', 'binary');
       \`);`,
    );
    // A Python that makes environments of itself.
    const probe = JSON.stringify({ version: [3, 12, 1], executable: join(folder, 'python3'), missing: [] });
    fake(
      'python3',
      `case "$1 $2" in
         "-m venv") mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo > "$4/pyvenv.cfg" ;;
         "-m pip") ;;
         *) echo '${probe}' ;;
       esac`,
    );
  });

  function environment(extra: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
    return {
      ...process.env,
      PATH: `${folder}${delimiter}${process.env.PATH}`,
      npm_execpath: join(folder, 'npm.cjs'),
      CANDLEWICK_PYTHON: '',
      NO_COLOR: '1',
      ...extra,
    };
  }

  function startClone(extra: NodeJS.ProcessEnv = {}) {
    const args = ['scripts/start.mjs', '--max-steps', '3'];
    return run(process.execPath, args, { cwd: clone, env: environment(extra) });
  }

  /** What the stand-ins were asked since the last look. */
  function asked(): string[] {
    const file = join(clone, 'asked.txt');
    if (!existsSync(file)) return [];
    const lines = readFileSync(file, 'utf8').trim().split('\n');
    rmSync(file);
    return lines.map((line) => line.split(' ').slice(0, 2).join(' ')).sort();
  }

  it('is set up once, then trains; the second time only what has changed is done again', async () => {
    const first = await startClone();
    expect(first.output).toContain('Python environment  done in');
    expect(first.code, first.output).toBe(0);
    expect(first.stdout).toContain(
      'train --config configs/quickstart.yaml --output runs/quickstart --max-steps 3',
    );
    expect(asked()).toEqual(['napi build', 'npm ci', 'tsc']);
    expect(existsSync(join(clone, 'dist/corpus/streamer.py'))).toBe(true);

    const second = await startClone();
    expect(second.code, second.output).toBe(0);
    expect(asked()).toEqual([]);
    expect(second.output.match(/in place/g)).toHaveLength(4);

    writeFileSync(join(clone, 'crates/changed.rs'), '// new\n');
    await startClone();
    expect(asked()).toEqual(['napi build']);

    writeFileSync(join(clone, 'src/changed.ts'), 'export {};\n');
    await startClone();
    expect(asked()).toEqual(['tsc']);

    rmSync(join(clone, 'dist'), { recursive: true });
    await startClone();
    expect(asked()).toEqual(['napi build', 'tsc']);
  });

  it('that fails in one part says which, shows what it printed, and trains nothing', async () => {
    const { code, output } = await startClone({ NPM_FAILS: '1' });
    expect(code).toBe(3);
    expect(output).toMatch(
      /error: npm packages: npm ci failed\nnpm error network\nhint: npm needs its registry/,
    );
    expect(output).not.toContain('candlewick train');
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    'that gets %s while it builds exits %d, and the next time goes on',
    async (signal, expected) => {
      const child = spawn(process.execPath, ['scripts/start.mjs'], {
        cwd: clone,
        env: environment({ NAPI_WAITS: '1' }),
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let output = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        output += text;
        // Twice: once from the terminal, and once more from npm, which hands it on.
        if (text.includes('native binding')) for (let i = 0; i < 2; i++) child.kill(signal);
      });
      const [code] = await once(child, 'close');
      expect(output).toContain('hint: run it again: it goes on from what is finished');
      expect(output).not.toContain('candlewick train');
      expect(code).toBe(expected);
      asked();

      const again = await startClone();
      expect(again.code, again.output).toBe(0);
      expect(asked()).toContain('napi build');
    },
  );
});
