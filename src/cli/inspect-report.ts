/** The report of `candlewick tokenizer inspect` for people. */
import type { SampleQuality, TokenizerFacts, TokenizerReport } from '../tokenizer/index.js';

const count = (n: number) => n.toLocaleString('en-US');
const percent = (share: number) => `${(share * 100).toFixed(share > 0 && share < 0.001 ? 3 : 1)} %`;
const megabytes = (bytes: number) =>
  bytes < 1e5 ? `${count(bytes)} bytes` : `${(bytes / 1e6).toFixed(1)} MB`;

/** Scripts shown; those with less text are summed up in JSON only. */
const SCRIPTS = 12;

/** Everything, in lines. `missing`: well-known tokenizers that were not compared for want of files. */
export function reportInWords(dir: string, report: TokenizerReport, missing: readonly string[]): string {
  const lines = [dir, ...labelled(factsInWords(report.tokenizer))];
  const { sample } = report;
  if (sample !== null) {
    const { documents, bytes, words } = sample;
    const one = documents === 1 ? 'document' : 'documents';
    lines.push('', `sample: ${count(documents)} ${one}, ${megabytes(bytes)}, ${count(words)} words`);
    lines.push(...labelled(sampleInWords(sample)));
    lines.push('', ...scriptTable(sample));
    lines.push('', ...compressionTable(report));
    if (missing.length > 0) lines.push(`  not compared: ${missing.join(', ')} (no files on this machine)`);
    lines.push('', 'longest tokens');
    const longest = sample.longest.map((token) => [
      String(token.id),
      `${token.bytes} bytes`,
      `${count(token.count)}×`,
      `"${token.text}"`,
    ]);
    lines.push(...table(longest, [true, true, true, false]));
  }
  return `${lines.join('\n')}\n`;
}

/** The few lines that a training ends with. */
export function summaryInWords(facts: TokenizerFacts, sample: SampleQuality): string[] {
  const { documents, bytes } = sample;
  const head = `on the first ${count(documents)} documents (${megabytes(bytes)}):`;
  return [head, ...labelled([...sampleInWords(sample), ['self-encoding', selfEncoding(facts)]])];
}

type Labelled = readonly (readonly [label: string, text: string])[];

function labelled(lines: Labelled): string[] {
  const width = Math.max(...lines.map(([label]) => label.length));
  return lines.map(([label, text]) => `  ${label.padEnd(width)}  ${text}`);
}

function factsInWords(facts: TokenizerFacts): Labelled {
  const { encoder, pattern, outside_registry, unicode, normalizer, vocab_size, merges } = facts;
  const named = ({ id, text }: { id: number; text: string }) => `${id} ${JSON.stringify(text)}`;
  const special = facts.special_tokens.map(named);
  const shown =
    special.length > 8 ? [...special.slice(0, 8), `and ${count(special.length - 8)} more`] : special;
  const lines: [string, string][] = [
    [
      'served by',
      encoder === 'candlewick'
        ? `candlewick, pattern ${pattern}, Unicode ${unicode}`
        : `the tokenizers library, slower than candlewick's own encoder: ${outside_registry}`,
    ],
    ['vocabulary', `${count(vocab_size)} tokens${merges === null ? '' : `, ${count(merges)} merges`}`],
    ['special tokens', shown.join(', ') || 'none'],
  ];
  const { added_tokens, end_of_text, no_rank_file } = facts;
  if (added_tokens.length > 0)
    lines.push(['added tokens', `${count(added_tokens.length)} that are not special`]);
  lines.push(
    ['end of text', end_of_text === null ? 'none: training needs one (eos_token)' : named(end_of_text)],
    ['normalizer', normalizer ?? 'none'],
    ['self-encoding', selfEncoding(facts)],
    ['tiktoken', no_rank_file === null ? 'a rank file gives the same ids' : `no rank file: ${no_rank_file}`],
  );
  return lines;
}

function selfEncoding({ unreachable }: TokenizerFacts): string {
  if (unreachable === null) return "not checked: the merges are the tokenizers library's";
  if (unreachable.count === 0)
    return `every one of ${count(unreachable.of)} tokens is what its bytes merge into`;
  return `${count(unreachable.count)} of ${count(unreachable.of)} tokens merge into something else: ids ${ids(unreachable)}`;
}

function ids({ first, count: all }: { first: number[]; count: number }): string {
  return all > first.length ? `${first.join(' ')} …` : first.join(' ');
}

function sampleInWords(sample: SampleQuality): Labelled {
  const { unreached, documents, lossless_documents } = sample;
  const lossy = documents - lossless_documents;
  const lines: [string, string][] = [
    ['compression', `${sample.bytes_per_token.toFixed(3)} bytes/token`],
    ['fertility', `${sample.tokens_per_word.toFixed(3)} tokens/word`],
    [
      'single bytes',
      `${percent(sample.single_byte_share)} of the tokens; ${percent(sample.partial_character_share)} are parts of a character`,
    ],
    [
      'never produced',
      unreached.count === 0
        ? 'no token'
        : `${count(unreached.count)} of ${count(unreached.of)} tokens (${percent(unreached.share)})`,
    ],
  ];
  if (lossy > 0)
    lines.push(['lossy', `${count(lossy)} of ${count(documents)} documents do not decode to themselves`]);
  return lines;
}

function scriptTable({ scripts }: SampleQuality): string[] {
  const rows = scripts
    .slice(0, SCRIPTS)
    .map((row) => [
      row.script,
      percent(row.byte_share),
      count(row.characters),
      count(row.tokens),
      row.tokens_per_character.toFixed(3),
      row.tokens_per_word?.toFixed(3) ?? '–',
      count(row.vocabulary),
    ]);
  const head = [
    'by script',
    'of bytes',
    'characters',
    'tokens',
    'per character',
    'per word',
    'in vocabulary',
  ];
  const left = scripts.length - SCRIPTS;
  const more = left > 0 ? [`  and ${left} more (--json)`] : [];
  return [...table([head, ...rows], [false, true, true, true, true, true, true], ''), ...more];
}

function compressionTable({ by_vocab_size, comparisons }: TokenizerReport): string[] {
  const on = by_vocab_size.at(-1)?.bytes ?? 0;
  const sizes = by_vocab_size.map(({ vocab_size, bytes_per_token }) => [
    `${count(vocab_size)} tokens`,
    bytes_per_token.toFixed(3),
  ]);
  const lines = [`bytes/token by vocabulary, on the first ${megabytes(on)}`, ...table(sizes, [true, true])];
  const peers = comparisons.map(({ name, vocab_size, bytes_per_token, same_size }) => [
    name,
    `${count(vocab_size)} tokens`,
    bytes_per_token.toFixed(3),
    same_size === null || by_vocab_size.at(-1)?.vocab_size === vocab_size
      ? ''
      : `at ${count(same_size.vocab_size)}: ${same_size.peer_bytes_per_token.toFixed(3)}, this one ${same_size.bytes_per_token.toFixed(3)}`,
  ]);
  return [...lines, ...table(peers, [false, true, true, false])];
}

/** Rows with columns of one width; `right`: which are set to the right. */
function table(rows: readonly (readonly string[])[], right: readonly boolean[], indent = '  '): string[] {
  const widths = right.map((_, column) => Math.max(0, ...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => {
    const cells = row.map((cell, at) =>
      right[at] ? cell.padStart(widths[at] ?? 0) : cell.padEnd(widths[at] ?? 0),
    );
    return `${indent}${cells.join('  ')}`.trimEnd();
  });
}
