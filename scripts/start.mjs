// `npm start`: sets up what is missing, then trains the quickstart. Old syntax, as in node-version.mjs.
import { requireNode } from './node-version.mjs';

requireNode();
import('./quickstart.mjs').then(function (quickstart) {
  return quickstart.main(process.argv.slice(2));
});
