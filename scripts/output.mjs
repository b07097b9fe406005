/** Plain lines for people, on stderr; colour only on a terminal that wants it. */

const colour = process.stderr.isTTY === true && !process.env.NO_COLOR;

/** Width of the column of names. */
const nameWidth = 20;

/** @param {string} text */
export function bold(text) {
  return colour ? `\u001b[1m${text}\u001b[22m` : text;
}

/** @param {string} text */
export function line(text) {
  process.stderr.write(`${text}\n`);
}

/**
 * @param {string} name of a part of the work
 * @param {string} what happens with it
 */
export function part(name, what) {
  line(`  ${name.padEnd(nameWidth)}${what}`);
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/**
 * Ends the process for a reason that the reader can do something about.
 *
 * @param {{ message: string, hint: string }[]} failures
 * @param {number} code
 */
export function fail(failures, code) {
  for (const { message, hint } of failures) {
    line(`error: ${message}`);
    line(`hint: ${hint}`);
  }
  process.exit(code);
}
