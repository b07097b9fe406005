/** What package.json, the lock files and the documents say must be true of each other. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const path = (name: string): string => fileURLToPath(new URL(`../${name}`, import.meta.url));
const read = (name: string): string => readFileSync(path(name), 'utf8');

interface Package {
  version: string;
  bin: Record<string, string>;
  engines: { node: string };
  files: string[];
  scripts: Record<string, string>;
  dependencies: Record<string, string>;
}

interface Lock {
  packages: Record<
    string,
    { version?: string; resolved?: string; optionalDependencies?: Record<string, string> }
  >;
}

const manifest = JSON.parse(read('package.json')) as Package;
const lock = JSON.parse(read('package-lock.json')) as Lock;

describe('package.json', () => {
  it('has the version of Cargo.toml and of the newest entry of CHANGELOG.md', () => {
    expect(read('Cargo.toml').match(/^version = "([^"]+)"/m)?.[1]).toBe(manifest.version);
    expect(read('CHANGELOG.md').match(/^## (\S+)/m)?.[1]).toBe(manifest.version);
    expect(lock.packages['']?.version).toBe(manifest.version);
  });

  it('asks for the Node that set-up asks for', () => {
    const oldest = read('scripts/node-version.mjs').match(/oldestNode = '([^']+)'/)?.[1];
    expect(manifest.engines.node).toBe(`>=${oldest}`);
  });

  it('names programs and files that are there', () => {
    for (const file of Object.values(manifest.bin)) {
      expect(read(file)).toMatch(/^#!\/usr\/bin\/env node\n/);
    }
    for (const file of manifest.files.filter((name) => !/^!|^dist$/.test(name))) {
      expect(existsSync(path(file)), file).toBe(true);
    }
  });

  it('runs nothing on the machine of those who install it', () => {
    for (const hook of ['preinstall', 'install', 'postinstall', 'prepare']) {
      expect(manifest.scripts).not.toHaveProperty(hook);
    }
  });

  it('names scripts that are there', () => {
    for (const [, file] of Object.values(manifest.scripts)
      .join('\n')
      .matchAll(/(\S+\.(?:mjs|js|ts))\b/g)) {
      expect(existsSync(path(file as string)), file).toBe(true);
    }
  });
});

describe('package-lock.json', () => {
  it('names no registry', () => {
    for (const [place, entry] of Object.entries(lock.packages)) {
      expect(entry.resolved, place).toBeUndefined();
    }
  });

  it('has the packages of other platforms, or npm ci refuses it (scripts/complete-lockfile.mjs adds them)', () => {
    const missing: string[] = [];
    for (const [place, entry] of Object.entries(lock.packages)) {
      for (const name of Object.keys(entry.optionalDependencies ?? {})) {
        const places = [`${place}/node_modules/${name}`, `node_modules/${name}`];
        if (!places.some((candidate) => candidate in lock.packages)) missing.push(name);
      }
    }
    expect(missing).toEqual([]);
  });
});

describe('Python requirements', () => {
  it('are pinned, every one', () => {
    const lines = read('src/corpus/requirements.txt')
      .split('\n')
      .filter((line) => line.trim() !== '' && !line.startsWith('#'));
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(line).toMatch(/^[\w.-]+(\[[\w,]+\])?==\d[\w.]*(\s*;.*)?$/);
  });
});

describe('names', () => {
  it('say what code is about: no utils, helpers, common or types', () => {
    const wrong: string[] = [];
    const walk = (folder: string): void => {
      for (const entry of readdirSync(path(folder), { withFileTypes: true })) {
        const name = `${folder}/${entry.name}`;
        if (/^(utils?|helpers?|common|types)(\.|$)/.test(entry.name)) wrong.push(name);
        if (entry.isDirectory()) walk(name);
      }
    };
    for (const folder of ['src', 'crates', 'scripts', '__test__', 'bench']) walk(folder);
    expect(wrong).toEqual([]);
  });
});
