//! The merges of a vocabulary, in the order of the `tokenizers` crate's trainer: the most frequent pair, ties to
//! the smaller (left id, right id).
//!
//! Counts are 64-bit; the crate's overflow at 2³¹ (huggingface/tokenizers#2057). Pairs are counted by overlapping
//! windows and merged left to right. Three habits of the crate decide merges in repetitive text and are kept:
//! - a spelling that two pairs give (`a`+`aa`, `aa`+`a`) is one token with two merges;
//! - the count of a merged pair is not set to zero, only its neighbours' are changed;
//! - an entry of the queue owns the words it was made for, so a pair that appears again is a second entry.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::base_tokens;
use super::changes::{Changes, Queue};
use super::count::Words;
use super::pairs::{PairCounts, pair_key};

/// Tokens by id, spelled in the alphabet, and merges by rank.
pub(super) struct Learned {
    pub(super) tokens: Vec<String>,
    pub(super) merges: Vec<(u32, u32)>,
}

/// The caller asked to stop.
#[derive(Debug)]
pub(super) struct Aborted;

/// Merges between two calls of `progress`.
const PROGRESS_EVERY: usize = 64;

/// Learns merges until there are `vocab_size` tokens, or no pair occurs `min_frequency` times.
pub(super) fn learn(
    words: Words,
    special_tokens: &[String],
    vocab_size: usize,
    min_frequency: u64,
    progress: &dyn Fn(usize) -> bool,
) -> Result<Learned, Aborted> {
    let (mut tokens, byte_ids) = base_tokens(special_tokens);
    let mut ids: HashMap<String, u32> = (0..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect();
    let least = i64::try_from(min_frequency.max(1)).unwrap_or(i64::MAX);
    let (mut counts, mut queue) = count_pairs(&words, &byte_ids);
    let mut corpus = Corpus::new(words, &byte_ids);
    let mut merges: Vec<(u64, u32)> = Vec::new();
    let mut changes = Changes::default();

    while tokens.len() < vocab_size {
        let Some((count, Reverse(pair), at)) = queue.heap.pop() else { break };
        let now = counts.get(pair);
        if count != now {
            queue.heap.push((now, Reverse(pair), at));
            continue;
        }
        if count < least {
            break;
        }
        let (a, b) = ((pair >> 32) as u32, pair as u32);
        let spelling = format!("{}{}", tokens[a as usize], tokens[b as usize]);
        let id = *ids.entry(spelling).or_insert_with_key(|spelling| {
            tokens.push(spelling.clone());
            (tokens.len() - 1) as u32
        });
        if merges.len().is_multiple_of(PROGRESS_EVERY) && !progress(tokens.len()) {
            return Err(Aborted);
        }
        merges.push((pair, id));

        changes.reserve(tokens.len());
        for word in std::mem::take(&mut queue.words[at]) {
            corpus.merge(word, a, b, id, &mut changes);
        }
        changes.apply(a, b, id, &mut counts, &mut queue);
    }
    if !progress(tokens.len()) {
        return Err(Aborted);
    }
    Ok(Learned { tokens, merges: by_last_rank(&merges) })
}

/// A pair merged twice has its later rank, as in the crate's map of merges.
fn by_last_rank(merges: &[(u64, u32)]) -> Vec<(u32, u32)> {
    let last: HashMap<u64, usize> =
        merges.iter().enumerate().map(|(rank, &(pair, _))| (pair, rank)).collect();
    let kept = merges.iter().enumerate().filter(|(rank, (pair, _))| last[pair] == *rank);
    kept.map(|(_, &(pair, _))| ((pair >> 32) as u32, pair as u32)).collect()
}

/// The count of every pair of bytes, and a queue of them with the words that each occurs in.
fn count_pairs(words: &Words, byte_ids: &[u32; 256]) -> (PairCounts, Queue) {
    let mut sums = vec![0i64; 1 << 16];
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); 1 << 16];
    let mut start = 0;
    for (at, &(length, count)) in (0..).zip(&words.words) {
        for pair in words.bytes[start..start + length].windows(2) {
            let pair = usize::from(pair[0]) << 8 | usize::from(pair[1]);
            sums[pair] += signed(count);
            if places[pair].last() != Some(&at) {
                places[pair].push(at);
            }
        }
        start += length;
    }
    let (mut counts, mut queue) = (PairCounts::default(), Queue::default());
    for (pair, (sum, words)) in sums.into_iter().zip(places).enumerate() {
        let pair = pair_key(byte_ids[pair >> 8], byte_ids[pair & 0xFF]);
        if sum > 0 {
            counts.add(pair, sum);
            queue.push(sum, pair, words);
        }
    }
    (counts, queue)
}

/// Counts are subtracted from, so they are signed; no text is long enough for the difference to show.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The distinct words as ids, shrinking in place as pairs merge.
struct Corpus {
    symbols: Vec<u32>,
    words: Vec<Word>,
}

struct Word {
    start: usize,
    length: usize,
    count: i64,
}

impl Corpus {
    fn new(words: Words, byte_ids: &[u32; 256]) -> Self {
        let symbols: Vec<u32> = words.bytes.iter().map(|&byte| byte_ids[byte as usize]).collect();
        let mut start = 0;
        let words = words.words.into_iter().map(|(length, count)| {
            let word = Word { start, length, count: signed(count) };
            start += length;
            word
        });
        Self { words: words.collect(), symbols }
    }

    /// Merges `a` `b` into `id` in one word, left to right, and notes what that does to its neighbours' pairs.
    fn merge(&mut self, at: u32, a: u32, b: u32, id: u32, changes: &mut Changes) {
        let word = &mut self.words[at as usize];
        let symbols = &mut self.symbols[word.start..word.start + word.length];
        let (mut read, mut write) = (0, 0);
        while read < symbols.len() {
            if symbols[read] != a || symbols.get(read + 1) != Some(&b) {
                symbols[write] = symbols[read];
                read += 1;
                write += 1;
                continue;
            }
            if write > 0 {
                let before = symbols[write - 1];
                changes.before.take(before, word.count);
                changes.before.give(before, word.count, at);
            }
            if let Some(&after) = symbols.get(read + 2) {
                changes.after.take(after, word.count);
                changes.after.give(after, word.count, at);
            }
            symbols[write] = id;
            read += 2;
            write += 1;
        }
        word.length = write;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_text::{Random, seed};

    fn merges(words: &[(String, u64)]) -> Vec<(u32, u32)> {
        let mut counted = Words::default();
        for (word, count) in words {
            counted.push(word.as_bytes(), *count);
        }
        learn(counted, &[], 300, 0, &|_| true).unwrap().merges
    }

    #[test]
    fn counts_past_32_bits_give_the_merges_of_small_counts() {
        let mut random = Random(seed());
        for _ in 0..50 {
            let words: Vec<(String, u64)> = (0..40)
                .map(|_| {
                    let word =
                        (0..2 + random.below(8)).map(|_| *random.pick(&['a', 'b', 'c', 'd', 'e', 'f']));
                    (word.collect(), 1 + random.below(50) as u64)
                })
                .collect();
            let large: Vec<(String, u64)> =
                words.iter().map(|(word, count)| (word.clone(), count << 40)).collect();
            assert_eq!(merges(&large), merges(&words));
        }
    }

    #[test]
    fn one_occurrence_more_decides_at_any_size() {
        let words = [("ab".to_owned(), 1 << 53), ("cd".to_owned(), (1 << 53) + 1)];
        let (tokens, byte_ids) = base_tokens(&[]);
        assert_eq!(tokens.len(), 256);
        let pair =
            |word: &str| (byte_ids[word.as_bytes()[0] as usize], byte_ids[word.as_bytes()[1] as usize]);
        assert_eq!(merges(&words), [pair("cd"), pair("ab")]);
    }
}
