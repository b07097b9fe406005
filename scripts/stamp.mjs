/** What a finished part of set-up was made from, so that the next run can leave it alone. */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, relative } from 'node:path';

/**
 * Digest of files, their names included, and of whatever else decides the result.
 *
 * @param {string} root
 * @param {string[]} paths files and folders below `root`; those that are not there count as empty
 * @param {string[]} extra
 */
export function digest(root, paths, extra = []) {
  const hash = createHash('sha256');
  for (const text of extra) hash.update(`${text}\0`);
  for (const path of paths) {
    for (const file of filesBelow(join(root, path))) {
      const bytes = readFileSync(file);
      hash.update(`${relative(root, file)}\0${bytes.length}\0`);
      hash.update(bytes);
    }
  }
  return hash.digest('hex');
}

function filesBelow(path) {
  if (!existsSync(path)) return [];
  if (!statSync(path).isDirectory()) return [path];
  return readdirSync(path)
    .filter((name) => name !== '__pycache__' && name !== 'target')
    .sort()
    .flatMap((name) => filesBelow(join(path, name)));
}

/** One finished part: a file that holds the digest of its inputs and the sizes of its results. */
export class Stamp {
  /**
   * @param {string} file
   * @param {string} inputs their digest as they are now
   */
  constructor(file, inputs) {
    this.file = file;
    this.digest = inputs;
  }

  /** Whether the part was finished from these inputs and its results are still there. */
  holds() {
    try {
      const { digest: made, results } = JSON.parse(readFileSync(this.file, 'utf8'));
      return made === this.digest && results.every(([path, size]) => statSync(path).size === size);
    } catch {
      // No stamp, half a stamp, or a result that is gone: the part is done again.
      return false;
    }
  }

  /**
   * Written last, and whole or not at all.
   *
   * @param {string[]} results files that the part has made
   */
  write(results) {
    mkdirSync(dirname(this.file), { recursive: true });
    const text = JSON.stringify({
      digest: this.digest,
      results: results.map((path) => [path, statSync(path).size]),
    });
    writeFileSync(`${this.file}.tmp`, `${text}\n`);
    renameSync(`${this.file}.tmp`, this.file);
  }
}
