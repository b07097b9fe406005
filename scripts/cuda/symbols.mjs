/** The list of CUDA's functions that the binding calls: a trampoline is made for each. */

const heading = `# Functions of CUDA's libraries that this program calls: a trampoline is made for each.
# npm run build:cuda -- --symbols writes this list; the build fails where it lacks one.
`;

/** In the order of the list. nvrtc has no entry: nothing is compiled while the program runs. */
const libraries = [
  { library: 'driver', pattern: /^cu[A-Z]/ },
  { library: 'cublasLt', pattern: /^cublasLt/ },
  { library: 'cublas', pattern: /^cublas(?!Lt)/ },
  { library: 'curand', pattern: /^curand/ },
  { library: 'runtime', pattern: /^(cuda[A-Z]|__cuda)/ },
];

/**
 * @param {string[]} names
 * @returns {string} the text of symbols.txt
 */
export function symbolList(names) {
  const lines = names.map((name) => {
    const found = libraries.find(({ pattern }) => pattern.test(name));
    if (found === undefined) throw new Error(`${name} is of a library that there are no trampolines to`);
    return { rank: libraries.indexOf(found), line: `${found.library} ${name}` };
  });
  lines.sort((a, b) => a.rank - b.rank || (a.line < b.line ? -1 : 1));
  return heading + lines.map(({ line }) => `${line}\n`).join('');
}
