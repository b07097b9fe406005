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

use rayon::prelude::*;

use super::changes::Changes;
use super::corpus::{Corpus, HEAD, count_of, too_large};
use super::pairs::{PairCounts, pair_key};
use super::queue::Queue;
use crate::error::TokenizerError;

/// Tokens by id, spelled in the alphabet, and merges by rank.
pub(super) struct Learned {
    pub(super) tokens: Vec<String>,
    pub(super) merges: Vec<(u32, u32)>,
}

/// How merges are learned.
pub(super) struct Settings<'a> {
    /// Tokens by id before any merge, and the id of each byte.
    pub(super) base: (Vec<String>, [u32; 256]),
    /// Merges that come first, spelled.
    pub(super) seed: &'a [(String, String)],
    pub(super) vocab_size: usize,
    pub(super) min_frequency: u64,
    /// Tokens that are made of others are shorter than this, in bytes; those of two bytes are free.
    pub(super) max_token_length: Option<usize>,
    /// Bytes of memory.
    pub(super) limit: u64,
}

/// Merges between two calls of `progress`.
const CHECK_EVERY: usize = 64;

/// Learns merges until there are `vocab_size` tokens, or no pair occurs `min_frequency` times.
///
/// Errors: `ABORTED` when `progress` says so, `OUT_OF_MEMORY_HOST` past the limit.
pub(super) fn learn(
    mut corpus: Corpus,
    settings: Settings<'_>,
    progress: &dyn Fn(usize) -> bool,
) -> Result<Learned, TokenizerError> {
    let (tokens, byte_ids) = settings.base;
    let (counts, queue) = count_pairs(&mut corpus, &byte_ids);
    let mut learner = Learner {
        corpus,
        counts,
        queue,
        changes: [Changes::default(), Changes::default()],
        ids: (0..).zip(&tokens).map(|(id, token)| (token.clone(), id)).collect(),
        lengths: tokens.iter().map(|token| token.chars().count()).collect(),
        longest: settings.max_token_length.unwrap_or(usize::MAX),
        tokens,
        merges: Vec::new(),
    };
    learner.repeat(settings.seed);
    let least = i64::try_from(settings.min_frequency.max(1)).unwrap_or(i64::MAX);
    while learner.tokens.len() < settings.vocab_size {
        if learner.merges.len().is_multiple_of(CHECK_EVERY) {
            if !progress(learner.tokens.len()) {
                return Err(aborted());
            }
            if learner.held() > settings.limit {
                return Err(too_large(learner.corpus.words, learner.held(), settings.limit));
            }
        }
        let Some(mut entry) = learner.queue.pop() else { break };
        let Reverse(pair) = entry.pair;
        let now = learner.counts.get(pair);
        if entry.count != now {
            entry.count = now;
            learner.queue.requeue(entry);
            continue;
        }
        if entry.count < least {
            break;
        }
        let words = learner.queue.words(entry);
        learner.merge(pair, &words);
    }
    if !progress(learner.tokens.len()) {
        return Err(aborted());
    }
    Ok(Learned { merges: by_last_rank(&learner.merges), tokens: learner.tokens })
}

fn aborted() -> TokenizerError {
    TokenizerError::new("ABORTED", "training the tokenizer was stopped", "run the command again")
}

/// The words as they are after the merges so far, and the pairs in them.
struct Learner {
    corpus: Corpus,
    counts: PairCounts,
    queue: Queue,
    /// Of two threads.
    changes: [Changes; 2],
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    /// Bytes of each token.
    lengths: Vec<usize>,
    longest: usize,
    merges: Vec<(u64, u32)>,
}

impl Learner {
    /// Merges a pair in `words`, which ascend, and queues the pairs that this forms.
    fn merge(&mut self, pair: u64, words: &[u32]) {
        let (a, b) = ((pair >> 32) as u32, pair as u32);
        let spelling = format!("{}{}", self.tokens[a as usize], self.tokens[b as usize]);
        let id = *self.ids.entry(spelling).or_insert_with_key(|spelling| {
            self.tokens.push(spelling.clone());
            self.lengths.push(spelling.chars().count());
            (self.tokens.len() - 1) as u32
        });
        self.merges.push((pair, id));
        self.changes.iter_mut().for_each(|changes| changes.reserve(self.tokens.len()));
        self.corpus.merge(words, a, b, id, &mut self.changes);
        let fits = |symbol: u32| self.lengths[symbol as usize] + self.lengths[id as usize] < self.longest;
        self.changes[0].apply(a, b, id, fits, &mut self.counts, &mut self.queue);
    }

    /// Makes merges that are given, in their order.
    fn repeat(&mut self, merges: &[(String, String)]) {
        if merges.is_empty() {
            return;
        }
        for (left, right) in merges {
            let pair = pair_key(self.ids[left], self.ids[right]);
            let words = self.queue.take(pair);
            self.merge(pair, &words);
        }
        self.queue.forget_pairs();
    }

    /// Bytes of memory.
    fn held(&self) -> u64 {
        (self.corpus.data.len() * size_of::<u32>() + self.queue.held() + self.counts.held()) as u64
    }
}

/// A pair merged twice has its later rank, as in the crate's map of merges.
fn by_last_rank(merges: &[(u64, u32)]) -> Vec<(u32, u32)> {
    let last: HashMap<u64, usize> =
        merges.iter().enumerate().map(|(rank, &(pair, _))| (pair, rank)).collect();
    let kept = merges.iter().enumerate().filter(|(rank, (pair, _))| last[pair] == *rank);
    kept.map(|(_, &(pair, _))| ((pair >> 32) as u32, pair as u32)).collect()
}

/// The count of every pair of bytes, and a queue of them with the words that each occurs in. The corpus' bytes become
/// ids.
fn count_pairs(corpus: &mut Corpus, byte_ids: &[u32; 256]) -> (PairCounts, Queue) {
    let mut pieces = corpus.pieces(rayon::current_num_threads());
    let mut counted: Vec<_> =
        pieces.par_iter_mut().map(|(start, data)| count_piece(*start, data, byte_ids)).collect();
    let (mut counts, mut queue) = (PairCounts::default(), Queue::default());
    for pair in 0..1 << 16 {
        let sum = counted.iter().map(|piece| piece[pair].sum).sum();
        if sum > 0 {
            let mut words = counted.iter_mut().map(|piece| std::mem::take(&mut piece[pair].words));
            let first = words.next().unwrap_or_default();
            let words = words.fold(first, |mut all, more| {
                all.extend_from_slice(&more);
                all
            });
            let pair = pair_key(byte_ids[pair >> 8], byte_ids[pair & 0xFF]);
            counts.add(&[(pair, sum)]);
            queue.push(sum, pair, words.into());
        }
    }
    (counts, queue)
}

/// A pair of bytes: how often it occurs, and where the words are that it occurs in.
#[derive(Clone, Default)]
struct BytePair {
    sum: i64,
    words: Vec<u32>,
}

/// The pairs of the words in one piece of a corpus, which begins at `start`; the bytes in it become ids.
fn count_piece(start: u32, data: &mut [u32], byte_ids: &[u32; 256]) -> Vec<BytePair> {
    let mut pairs = vec![BytePair::default(); 1 << 16];
    let mut at = 0;
    while at < data.len() {
        let place = start + at as u32;
        let (head, rest) = data[at..].split_at_mut(HEAD);
        let symbols = &mut rest[..head[0] as usize];
        let count = count_of(head);
        for pair in symbols.windows(2) {
            let pair = &mut pairs[(pair[0] << 8 | pair[1]) as usize];
            pair.sum += count;
            if pair.words.last() != Some(&place) {
                pair.words.push(place);
            }
        }
        symbols.iter_mut().for_each(|symbol| *symbol = byte_ids[*symbol as usize]);
        at += HEAD + head[0] as usize;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample_text::{Random, seed};
    use crate::train::base_tokens;
    use crate::train::corpus::Part;

    fn merges(words: &[(String, u64)]) -> Vec<(u32, u32)> {
        let mut part = Part::default();
        for (word, count) in words {
            part.push(word.as_bytes(), *count);
        }
        let settings = Settings {
            base: base_tokens(&[]),
            seed: &[],
            vocab_size: 300,
            min_frequency: 0,
            max_token_length: None,
            limit: u64::MAX,
        };
        learn(Corpus::of(vec![part]), settings, &|_| true).unwrap().merges
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

    /// Counts every pair again for every merge. `None` where a habit of the crate would show: a spelling that two
    /// pairs give, or a pair that comes again.
    fn naive(words: &[(String, u64)], merges: usize) -> Option<Vec<(u32, u32)>> {
        let (mut tokens, byte_ids) = base_tokens(&[]);
        let mut words: Vec<(Vec<u32>, u128)> = words
            .iter()
            .map(|(word, count)| {
                (word.bytes().map(|byte| byte_ids[byte as usize]).collect(), (*count).into())
            })
            .collect();
        let mut merged = Vec::new();
        for _ in 0..merges {
            let mut counts: HashMap<(u32, u32), u128> = HashMap::new();
            for (symbols, count) in &words {
                symbols.windows(2).for_each(|pair| *counts.entry((pair[0], pair[1])).or_default() += count);
            }
            let Some((&pair, _)) = counts.iter().max_by_key(|&(&pair, &count)| (count, Reverse(pair))) else {
                break;
            };
            let spelling = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
            if tokens.contains(&spelling) || merged.contains(&pair) {
                return None;
            }
            let id = tokens.len() as u32;
            tokens.push(spelling);
            merged.push(pair);
            for (symbols, _) in &mut words {
                let mut at = 0;
                while at + 1 < symbols.len() {
                    if (symbols[at], symbols[at + 1]) == pair {
                        symbols.splice(at..at + 2, [id]);
                    }
                    at += 1;
                }
            }
        }
        Some(merged)
    }

    #[test]
    fn counts_past_32_bits_give_the_merges_of_counting_again_for_each() {
        let mut random = Random(seed());
        let mut compared = 0;
        for round in 0..200 {
            let words: Vec<(String, u64)> = (0..30)
                .map(|_| {
                    let letters = 2 + random.below(7);
                    let word = (0..letters).map(|_| *random.pick(&['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']));
                    (word.collect(), (1 << 31) + (random.next() >> 16))
                })
                .collect();
            if let Some(expected) = naive(&words, 44) {
                assert_eq!(merges(&words), expected, "round {round}: {words:?}");
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared} corpora were compared");
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
