/** Preloaded into a program: writes its peak memory in bytes to the file that CANDLEWICK_PEAK names, when it ends. */
import { writeFileSync } from 'node:fs';

process.on('exit', () => {
  const file = process.env.CANDLEWICK_PEAK;
  if (file !== undefined) writeFileSync(file, String(process.resourceUsage().maxRSS * 1024));
});
