import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['__test__/**/*.test.{ts,mjs}'],
    // They are for the binding with CUDA, and have a configuration of their own.
    exclude: ['__test__/cuda/**'],
    // The binding starts threads of its own and tests start processes: each file gets a process to itself.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
