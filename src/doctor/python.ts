/** The Python that streams, and what it imports. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { findPython } from '../corpus/index.js';
import { CandlewickError } from '../errors.js';
import { olderThan } from '../setup/python.mjs';
import { run } from '../setup/run.mjs';
import { fail, ok, warn } from './check.js';
import type { Check, DoctorOptions } from './check.js';

/** The oldest versions that the streamer is tested with. */
const oldest: Record<string, string> = { datasets: '4.0.0', huggingface_hub: '0.34.4', pyarrow: '17' };

/** Importing `datasets` from a cold disk takes a while. */
const IMPORT_TIMEOUT_MS = 120_000;

/** Imports each module in turn; what one fails with is kept. Names arrive as arguments, a JSON object goes out. */
const probe = `
import importlib, importlib.metadata, json, os, sys
found = {}
out = os.dup(1)
os.dup2(2, 1)
for name in sys.argv[1:]:
    try:
        importlib.import_module(name.replace("-", "_"))
        found[name] = {"version": importlib.metadata.version(name.replace("_", "-"))}
    except BaseException as error:
        found[name] = {"error": (type(error).__name__ + ": " + str(error)).splitlines()[0][:300]}
os.write(out, json.dumps(found).encode())
`;

export async function checkPython({ python, env = process.env, cwd }: DoctorOptions): Promise<Check[]> {
  try {
    const found = await findPython({
      env,
      ...(python === undefined ? {} : { python }),
      ...(cwd === undefined ? {} : { cwd }),
    });
    const interpreter = ok('python', `${found.version}, ${found.path} (${found.from})`);
    return [interpreter, await checkImports(found.path, env)];
  } catch (cause) {
    if (cause instanceof CandlewickError) return [fail('python', cause.message, cause.hint)];
    throw cause;
  }
}

async function checkImports(path: string, env: NodeJS.ProcessEnv): Promise<Check> {
  const pinned = requirements();
  const names = [...pinned.keys()];
  const result = await run(path, ['-c', probe, ...names], { env, timeout: IMPORT_TIMEOUT_MS });
  const cure =
    'npx candlewick setup makes an environment with exactly what is needed in ./.venv (it is found by itself)';
  if (result.code !== 0) {
    const said = result.output.trim().split('\n').at(-1) ?? '';
    return fail('imports', `${path} does not run the check: ${said}`, cure);
  }
  const found = JSON.parse(result.stdout) as Record<string, { version?: string; error?: string }>;
  const broken = names.filter((name) => found[name]?.version === undefined);
  if (broken.length > 0) {
    const why = broken.map((name) => `${name}: ${found[name]?.error ?? 'no answer'}`).join('; ');
    return fail('imports', why, cure);
  }
  const versionOf = (name: string) => found[name]?.version ?? '';
  const versions = names.map((name) => `${name} ${versionOf(name)}`).join(', ');
  const tooOld = names.filter(
    (name) => oldest[name] !== undefined && olderThan(versionOf(name), oldest[name] ?? ''),
  );
  if (tooOld.length > 0) {
    const least = tooOld.map((name) => `${name} ${oldest[name]}`).join(', ');
    return fail('imports', `${versions}; older than what the streamer works with (${least})`, cure);
  }
  const others = names.filter((name) => versionOf(name) !== pinned.get(name));
  if (others.length > 0) {
    const tested = others.map((name) => `${name} ${pinned.get(name)}`).join(', ');
    return warn('imports', `${versions}; tested with ${tested}`, `if the stream misbehaves: ${cure}`);
  }
  return ok('imports', versions);
}

/** The pinned requirements: versions by name. */
function requirements(): Map<string, string> {
  const file = fileURLToPath(new URL('../corpus/requirements.txt', import.meta.url));
  const pins = readFileSync(file, 'utf8').matchAll(/^([\w-]+)==(\S+)/gm);
  return new Map(Array.from(pins, ([, name = '', version = '']) => [name, version]));
}
