/** Tests of the binding that has CUDA inside, on a machine that need not have any: after `npm run build:cuda`. */
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const folder = fileURLToPath(new URL('dist/native-cuda/', import.meta.url));
const binary = readdirSync(folder).find((name) => name.endsWith('.node'));

export default defineConfig({
  test: {
    include: ['__test__/cuda/**/*.test.ts', '__test__/tokenizer-api.test.ts'],
    env: { CANDLEWICK_NATIVE: `${folder}${binary ?? ''}` },
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
