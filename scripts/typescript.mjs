/**
 * Lets Node run the TypeScript of tests and benches as it stands: `node --import ./scripts/typescript.mjs FILE.ts`.
 * Types are left out, not checked; `npm test` checks them. Node 20 cannot do that by itself.
 */
import { register } from 'node:module';

register('./typescript-hooks.mjs', import.meta.url);
