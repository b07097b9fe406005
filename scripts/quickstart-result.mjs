/**
 * `node scripts/quickstart-result.mjs LOG`: whether the model that `npm start` trained has learnt more than how often
 * each token occurs. Its last evaluation must be at most 0.9 of the unigram distribution's bits per byte.
 */
import { readFileSync } from 'node:fs';

const log = readFileSync(process.argv[2] ?? 0, 'utf8');
const evaluations = [...log.matchAll(/([\d.]+) bits per byte \(unigram ([\d.]+)/g)];
const last = evaluations.pop();
if (!last) {
  process.stdout.write('the quickstart printed no evaluation\n');
  process.exit(1);
}
const [, model, unigram] = last.map(Number);
const good = model <= 0.9 * unigram;
process.stdout.write(
  `quickstart: ${model} bits per byte, unigram ${unigram}: ${(model / unigram).toFixed(3)} of it, ` +
    `${good ? 'at most' : 'more than'} 0.9\n`,
);
process.exit(good ? 0 : 1);
