//! The ids of words seen before, within a budget of bytes.

mod long;
mod short;

use long::LongWords;
use short::ShortWords;
pub(crate) use short::{Ids, Key, Place, Slot, Table};
#[cfg(target_arch = "x86_64")]
pub(crate) use short::{PARTS, hash_aes};

/// Remembers what words encode to: short words in one table, all others in another.
pub(crate) struct WordCache {
    pub(crate) short: ShortWords,
    pub(crate) long: LongWords,
}

impl WordCache {
    /// A cache that grows to `budget` bytes, and to 200 KB at least.
    pub(crate) fn new(budget: usize) -> Self {
        let mut cache = Self { short: ShortWords::new(), long: LongWords::new() };
        cache.allow(budget);
        cache
    }

    /// Raises the budget to `budget` bytes, where it is less.
    pub(crate) fn allow(&mut self, budget: usize) {
        self.short.allow(budget / 4 * 3);
        self.long.allow(budget / 16 * 3);
    }

    /// Where a word is if it is known; asks the processor for it. `key` is the word's.
    #[inline(always)]
    pub(crate) fn place<'a>(&self, key: Key, word: impl FnOnce() -> &'a [u8]) -> Place {
        if key.is_none() { self.long.place(word()) } else { self.short.place(key) }
    }

    /// Makes room for the words of so many bytes of text, within the budget.
    pub(crate) fn expect(&mut self, bytes: usize) {
        // In 30 MB, English text has a new word every 150 bytes, and text of many languages one every 100.
        self.short.expect(bytes / 128);
    }
}
