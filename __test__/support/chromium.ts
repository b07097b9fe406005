import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/** A Chromium of this machine, or null: `CANDLEWICK_TEST_CHROMIUM`, or one in PATH (Debian: `apt-get install chromium`). */
export function findChromium(): string | null {
  const named = process.env['CANDLEWICK_TEST_CHROMIUM'];
  if (named !== undefined && named !== '') return named;
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not this one.
      }
    }
  }
  return null;
}
