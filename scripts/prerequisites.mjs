/** The tools that set-up needs before it can install anything itself. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { installCommand } from '../src/setup/package-manager.mjs';
import { findPython, olderThan, SetupError } from '../src/setup/python.mjs';
import { run } from '../src/setup/run.mjs';

/**
 * Looks for every tool at once, so that one run names all that is missing.
 *
 * @param {string} root of the clone
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<{ found: string[], missing: { message: string, hint: string }[] }>}
 */
export async function checkPrerequisites(root, env) {
  const looks = await Promise.all([cargo(root, env), compiler(env), python(env)]);
  return {
    found: [`Node ${process.versions.node}`, ...looks.flatMap((look) => look.found ?? [])],
    missing: looks.flatMap((look) => look.missing ?? []),
  };
}

async function cargo(root, env) {
  const result = await run('cargo', ['--version'], { cwd: root, env });
  const rustup =
    'curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . "$HOME/.cargo/env"';
  const install = process.platform === 'win32' ? 'winget install Rustlang.Rustup' : rustup;
  if (result.error) {
    return {
      missing: [
        { message: 'no cargo on PATH: the Rust core cannot be built', hint: `install Rust: ${install}` },
      ],
    };
  }
  if (result.code !== 0) {
    // rustup is there and the toolchain that rust-toolchain.toml names is not.
    const channel = readFileSync(join(root, 'rust-toolchain.toml'), 'utf8').match(
      /channel\s*=\s*"([^"]+)"/,
    )?.[1];
    return {
      missing: [
        {
          message: `cargo does not start: ${result.output.trim().split('\n')[0]}`,
          hint: `install the toolchain: rustup toolchain install ${channel ?? 'stable'} --component clippy,rustfmt`,
        },
      ],
    };
  }
  const version = result.stdout.match(/\d+\.\d+\.\d+/)?.[0] ?? '0';
  const least =
    readFileSync(join(root, 'Cargo.toml'), 'utf8').match(/rust-version\s*=\s*"([^"]+)"/)?.[1] ?? '0';
  if (olderThan(version, least)) {
    return {
      missing: [
        {
          message: `cargo is ${version}; ${least} or newer is needed`,
          hint: `rustup update, or install Rust by rustup: ${install}`,
        },
      ],
    };
  }
  return { found: `cargo ${version}` };
}

async function compiler(env) {
  // rustc links by cc, and the crates that bring C sources compile them by it.
  if (process.platform === 'win32') return {};
  const name = env.CC || 'cc';
  const result = await run(name, ['--version'], { env });
  if (result.code === 0)
    return { found: `${name} ${result.stdout.match(/\d+\.\d+(\.\d+)?/)?.[0] ?? ''}`.trim() };
  const cure = installCommand(
    {
      apt: 'build-essential',
      dnf: 'gcc gcc-c++ make',
      apk: 'build-base',
      pacman: 'base-devel',
      zypper: 'gcc gcc-c++ make',
      macos: 'xcode-select --install',
    },
    env,
  );
  return {
    missing: [
      {
        message: `no C compiler (${name}): the Rust core cannot be linked`,
        hint: cure ?? 'install gcc or clang',
      },
    ],
  };
}

async function python(env) {
  try {
    return { found: `Python ${(await findPython(env)).version}` };
  } catch (error) {
    if (error instanceof SetupError) return { missing: [{ message: error.message, hint: error.hint }] };
    throw error;
  }
}
