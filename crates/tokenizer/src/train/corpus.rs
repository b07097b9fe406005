//! The distinct words as symbols, shrinking in place as pairs merge.

use super::changes::Changes;
use super::table::Table;
use crate::error::TokenizerError;
use crate::prefetch::prefetch;
use crate::word::FoldHasher;
use std::hash::Hasher;

/// Numbers before a word's symbols: how many these are, and the count's lower and upper half. A word is one stretch of
/// memory, so that finding it costs one wait.
pub(super) const HEAD: usize = 3;

/// Words are kept by the magnitude of their counts: frequent ones, which merge often, lie together.
const CLASSES: usize = 8;

/// A place has to leave a bit free in the queue.
const LARGEST: usize = 1 << 31;
/// From so many words on, a merge is shared between threads.
const SHARED: usize = 4096;
/// Words read ahead of the one that is merged.
const AHEAD: usize = 24;

/// Words from one part of a table.
#[derive(Default)]
pub(super) struct Part {
    classes: [Vec<u32>; CLASSES],
    words: usize,
    /// Numbers in all classes.
    numbers: usize,
    digest: [u64; 2],
}

/// Numbers of a part that is not the last.
const PART: usize = 1 << 20;

impl Part {
    pub(super) fn is_full(&self) -> bool {
        self.numbers >= PART
    }

    pub(super) fn of(table: &Table) -> Self {
        let mut part = Self::default();
        table.for_each(|word, count| part.push(word, count));
        part
    }

    /// Adds a word; its symbols are its bytes.
    pub(super) fn push(&mut self, word: &[u8], count: u64) {
        // Sums of many are signed.
        let count = count.min(u64::MAX >> 8);
        let class = &mut self.classes[CLASSES - 1 - (count.ilog2() as usize / 2).min(CLASSES - 1)];
        class.extend([word.len() as u32, count as u32, (count >> 32) as u32]);
        class.extend(word.iter().map(|&byte| u32::from(byte)));
        self.words += 1;
        self.numbers += HEAD + word.len();
        for (seed, sum) in (0..).zip(&mut self.digest) {
            let mut hasher = FoldHasher::default();
            hasher.write_u64(seed);
            hasher.write(word);
            hasher.write_u64(count);
            *sum = sum.wrapping_add(hasher.finish());
        }
    }
}

/// Words, each a head and its symbols.
pub(super) struct Corpus {
    pub(super) data: Vec<u32>,
    pub(super) words: usize,
    /// A hash of every word with its count, whatever their order: equal counts have equal digests.
    pub(super) digest: [u64; 2],
}

impl Corpus {
    /// `OUT_OF_MEMORY_HOST` when the words of `parts` take more than `limit` bytes to merge.
    pub(super) fn check(parts: &[Part], limit: u64) -> Result<(), TokenizerError> {
        let numbers: usize = parts.iter().map(|part| part.numbers).sum();
        let words: usize = parts.iter().map(|part| part.words).sum();
        // The words, and where each pair of bytes occurs: lists that grow by doubling.
        let pairs = numbers - words * HEAD;
        let needed = ((numbers + 2 * pairs) * size_of::<u32>()) as u64;
        if needed > limit || numbers >= LARGEST { Err(too_large(words, needed, limit)) } else { Ok(()) }
    }

    /// Puts parts together, each given back to the allocator once it is copied.
    pub(super) fn of(mut parts: Vec<Part>) -> Self {
        let mut digest = [0u64; 2];
        for part in &parts {
            for (sum, more) in digest.iter_mut().zip(part.digest) {
                *sum = sum.wrapping_add(more);
            }
        }
        let mut data = Vec::new();
        data.reserve_exact(parts.iter().map(|part| part.numbers).sum());
        for class in 0..CLASSES {
            for part in &mut parts {
                data.extend(std::mem::take(&mut part.classes[class]));
            }
        }
        Self { data, words: parts.iter().map(|part| part.words).sum(), digest }
    }

    /// The words in up to `wanted` pieces of about the same size, each with the place where it begins.
    pub(super) fn pieces(&mut self, wanted: usize) -> Vec<(u32, &mut [u32])> {
        let aim = (self.data.len() / wanted.max(1)).max(1);
        let (mut pieces, mut rest, mut start) = (Vec::new(), self.data.as_mut_slice(), 0);
        while !rest.is_empty() {
            let mut end = 0;
            while end < rest.len() && end < aim {
                end += HEAD + rest[end] as usize;
            }
            let (piece, more) = rest.split_at_mut(end);
            pieces.push((start, piece));
            start += end as u32;
            rest = more;
        }
        pieces
    }

    /// Merges `a` `b` into `id` in the words at `places`, which ascend; `changes[0]` gets what that changes. Many words
    /// are shared between two threads.
    pub(super) fn merge(&mut self, places: &[u32], a: u32, b: u32, id: u32, changes: &mut [Changes; 2]) {
        let [changes, later_changes] = changes;
        if places.len() < SHARED || rayon::current_num_threads() == 1 {
            merge_words(&mut self.data, 0, places, a, b, id, changes);
            return;
        }
        let (earlier, later) = places.split_at(places.len() / 2);
        let start = later[0];
        let (front, back) = self.data.split_at_mut(start as usize);
        rayon::join(
            || merge_words(front, 0, earlier, a, b, id, changes),
            || merge_words(back, start, later, a, b, id, later_changes),
        );
        changes.absorb(later_changes);
    }
}

/// Nothing is left out to make words fit: a vocabulary that depends on memory would be nobody's.
pub(super) fn too_large(words: usize, needed: u64, limit: u64) -> TokenizerError {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    TokenizerError::new(
        "OUT_OF_MEMORY_HOST",
        format!(
            "the merges of {words} distinct words need more than the {:.2} GB of the memory limit",
            gigabytes(limit)
        ),
        format!(
            "raise --memory-limit, to well over {:.1}GB, or train on fewer documents (--max-samples)",
            gigabytes(needed)
        ),
    )
}

/// The count in a word's head.
#[inline(always)]
pub(super) fn count_of(head: &[u32]) -> i64 {
    (u64::from(head[1]) | u64::from(head[2]) << 32) as i64
}

/// Merges `a` `b` into `id` in the words at `places` of data that begins at `start`.
fn merge_words(data: &mut [u32], start: u32, places: &[u32], a: u32, b: u32, id: u32, changes: &mut Changes) {
    for (next, &place) in (AHEAD..).zip(places) {
        if let Some(&ahead) = places.get(next) {
            prefetch(&data[(ahead - start) as usize]);
        }
        merge_word(&mut data[(place - start) as usize..], place, a, b, id, changes);
    }
}

/// Merges `a` `b` into `id` in one word, left to right, and notes what that does to its neighbours' pairs.
#[inline(always)]
fn merge_word(data: &mut [u32], place: u32, a: u32, b: u32, id: u32, changes: &mut Changes) {
    let (head, rest) = data.split_at_mut(HEAD);
    let count = count_of(head);
    let symbols = &mut rest[..head[0] as usize];
    let Some(first) = symbols.windows(2).position(|pair| pair[0] == a && pair[1] == b) else { return };
    let (mut read, mut write) = (first, first);
    while read < symbols.len() {
        if symbols[read] != a || symbols.get(read + 1) != Some(&b) {
            symbols[write] = symbols[read];
            read += 1;
            write += 1;
            continue;
        }
        if write > 0 {
            changes.before.note(symbols[write - 1], count, place);
        }
        if let Some(&after) = symbols.get(read + 2) {
            changes.after.note(after, count, place);
        }
        symbols[write] = id;
        read += 2;
        write += 1;
    }
    head[0] = write as u32;
}
