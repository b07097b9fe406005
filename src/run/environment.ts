import { cpus, hostname, release, totalmem } from 'node:os';
import { withoutSecrets } from './secrets.js';
import type { OpenSource } from './source.js';

/** Variables that change what a run does or where it reads; tokens are not among them. */
const VARIABLES = [
  'CANDLEWICK_PYTHON',
  'CUDA_VISIBLE_DEVICES',
  'HF_DATASETS_OFFLINE',
  'HF_ENDPOINT',
  'HF_HOME',
  'HF_HUB_OFFLINE',
  'RAYON_NUM_THREADS',
  'VIRTUAL_ENV',
];

/** `env.json`: what a run was last started with and on. */
export function environmentOf(version: string, sources: readonly OpenSource[]): string {
  const processors = cpus();
  const libraries = Object.assign({}, ...sources.map(({ ready }) => ready.versions ?? {})) as object;
  const variables = VARIABLES.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [[name, value]];
  });
  const environment = {
    started: new Date().toISOString(),
    candlewick: version,
    node: process.versions.node,
    python: libraries,
    platform: process.platform,
    architecture: process.arch,
    kernel: release(),
    host: hostname(),
    processor: processors[0]?.model ?? null,
    processors: processors.length,
    memory_bytes: totalmem(),
    environment: Object.fromEntries(variables) as object,
  };
  return `${withoutSecrets(JSON.stringify(environment, null, 2))}\n`;
}
