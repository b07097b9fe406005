//! Counts of words over documents.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::nfc::nfc;
use crate::pattern::Pattern;
use crate::scan::for_each_word;
use crate::word::{BuildFoldHasher, pack, unpack};

/// Distinct words, one after the other, each with its count.
#[derive(Default)]
pub(super) struct Words {
    /// The bytes of all words.
    pub(super) bytes: Vec<u8>,
    /// Length in bytes and count of each word, in the order of `bytes`.
    pub(super) words: Vec<(usize, u64)>,
}

impl Words {
    pub(super) fn push(&mut self, word: &[u8], count: u64) {
        self.bytes.extend_from_slice(word);
        self.words.push((word.len(), count));
    }
}

/// Counts words in 64 bits, each thread in a table of its own.
pub(super) struct WordCounter {
    pattern: Pattern,
    tables: Vec<Table>,
}

#[derive(Default)]
struct Table {
    short: HashMap<u128, u64, BuildFoldHasher>,
    long: HashMap<Box<[u8]>, u64, BuildFoldHasher>,
}

impl WordCounter {
    pub(super) fn new(pattern: Pattern) -> Self {
        Self { pattern, tables: Vec::new() }
    }

    /// Counts on rayon's threads; which thread counts a document does not change the sums.
    pub(super) fn count(&mut self, documents: &[&str]) {
        let threads = rayon::current_num_threads().clamp(1, documents.len().max(1));
        if self.tables.len() < threads {
            self.tables.resize_with(threads, Table::default);
        }
        let pattern = self.pattern;
        let next = AtomicUsize::new(0);
        self.tables[..threads].par_iter_mut().for_each(|table| {
            while let Some(document) = documents.get(next.fetch_add(1, Ordering::Relaxed)) {
                if pattern == Pattern::Qwen2 {
                    table.count(pattern, &nfc(document));
                } else {
                    table.count(pattern, document);
                }
            }
        });
    }

    /// The sums over all tables.
    pub(super) fn into_words(self) -> Words {
        let mut tables = self.tables.into_iter();
        let mut all = tables.next().unwrap_or_default();
        for table in tables {
            for (word, count) in table.short {
                *all.short.entry(word).or_default() += count;
            }
            for (word, count) in table.long {
                *all.long.entry(word).or_default() += count;
            }
        }
        let mut words = Words::default();
        let mut bytes = Vec::new();
        for (word, count) in all.short {
            bytes.clear();
            unpack(word, &mut bytes);
            words.push(&bytes, count);
        }
        for (word, count) in all.long {
            words.push(&word, count);
        }
        words
    }
}

impl Table {
    fn count(&mut self, pattern: Pattern, text: &str) {
        let bytes = text.as_bytes();
        for_each_word(pattern, text, |word| match pack(bytes, word.clone()) {
            Some(word) => *self.short.entry(word).or_default() += 1,
            None => match self.long.get_mut(&bytes[word.clone()]) {
                Some(count) => *count += 1,
                None => {
                    self.long.insert(bytes[word].into(), 1);
                }
            },
        });
    }
}
