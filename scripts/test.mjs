// `npm test` and `npm run ready`: sets up what is missing, then runs every check. Old syntax, as in node-version.mjs.
import { requireNode } from './node-version.mjs';

requireNode();
import('./ready.mjs').then(function (ready) {
  return ready.main(process.argv.slice(2));
});
