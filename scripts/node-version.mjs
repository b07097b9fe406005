// Old syntax and no imports: an old Node must get as far as the message.

/** Oldest Node that the package runs on; package.json says the same. */
export const oldestNode = '20.17.0';

/** Ends the process with exit code 3 and what to do, where Node is too old. */
export function requireNode() {
  var version = process.versions.node;
  var have = version.split('.').map(Number);
  var need = oldestNode.split('.').map(Number);
  for (var i = 0; i < 3; i++) {
    if (have[i] > need[i]) return;
    if (have[i] < need[i]) {
      console.error('error: this is Node ' + version + '; candlewick needs ' + oldestNode + ' or newer');
      console.error(
        'hint: install a newer one: https://nodejs.org, `nvm install 22`, `fnm install 22` or `brew install node`',
      );
      process.exit(3);
    }
  }
}
