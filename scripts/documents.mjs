/** `npm run docs`: writes the pages under docs/ that are made from the sources. Wants `npm run build:ts` first. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { apiReference } from './api-reference.mjs';
import { configurationReference } from './configuration-reference.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const { runSchema } = await import('../dist/config/index.js');
const { trainOptions } = await import('../dist/cli/options.js');
const pages = {
  'docs/api.md': apiReference(root),
  'docs/configuration.md': configurationReference(z.toJSONSchema(runSchema, { io: 'input' }), trainOptions),
};
for (const [name, text] of Object.entries(pages)) {
  writeFileSync(join(root, name), text);
  process.stdout.write(`${name}\n`);
}
