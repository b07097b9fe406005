/**
 * `node scripts/quickstart-result.mjs LOG`: whether the model that `npm start` trained has learnt more than how often
 * each token occurs, and more than which token follows which. Its last evaluation must be at most 0.8 of the unigram
 * distribution's bits per byte, and with one token of context the loss must be higher by at least 0.3 nats.
 */
import { readFileSync } from 'node:fs';

const MOST_OF_UNIGRAM = 0.8;
const LEAST_OF_CONTEXT = 0.3;

const log = readFileSync(process.argv[2] ?? 0, 'utf8');
const evaluations = [
  ...log.matchAll(
    /loss ([\d.]+), ([\d.]+) bits per byte \(unigram ([\d.]+).*\); loss ([\d.]+) with one token of context/g,
  ),
];
const last = evaluations.pop();
if (!last) {
  process.stdout.write('the quickstart printed no evaluation at its end\n');
  process.exit(1);
}
const [, loss, model, unigram, alone] = last.map(Number);
const share = model / unigram;
const lost = alone - loss;
process.stdout.write(
  `quickstart: ${model} bits per byte, unigram ${unigram}: ${share.toFixed(3)} of it, ` +
    `${share <= MOST_OF_UNIGRAM ? 'at most' : 'more than'} ${MOST_OF_UNIGRAM}; ` +
    `with one token of context the loss is ${alone}, ${lost.toFixed(3)} nats more, ` +
    `${lost >= LEAST_OF_CONTEXT ? 'at least' : 'less than'} ${LEAST_OF_CONTEXT}\n`,
);
process.exit(share <= MOST_OF_UNIGRAM && lost >= LEAST_OF_CONTEXT ? 0 : 1);
