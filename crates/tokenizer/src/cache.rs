//! The ids of words seen before, within a budget of bytes.

mod long;
mod short;

use long::LongWords;
use short::ShortWords;
pub(crate) use short::{Ids, Key, Place};

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
        self.long.allow(budget / 4);
    }
}

impl WordCache {
    /// Where a word is if it is known; asks the processor for it. `key` is the word's.
    #[inline(always)]
    pub(crate) fn place<'a>(&self, key: Key, word: impl FnOnce() -> &'a [u8]) -> Place {
        if key.is_none() { self.long.place(word()) } else { self.short.place(key) }
    }

    /// Appends the ids of a short word whose ids are among the long ones'; false when they have been forgotten.
    pub(crate) fn take_elsewhere(&self, word: Key, ids: &mut Vec<u32>) -> bool {
        let (bytes, length) = word.bytes();
        self.long.take(&bytes[..length], self.long.place(&bytes[..length]), ids)
    }

    /// Remembers a short word; one of many ids among the long ones.
    pub(crate) fn put_short(&mut self, word: Key, ids: &[u32]) {
        if !self.short.put(word, ids) {
            let (bytes, length) = word.bytes();
            self.long.put(&bytes[..length], self.long.place(&bytes[..length]), ids);
        }
    }
}

impl WordCache {
    /// Makes room for the words of so many bytes of text, within the budget.
    pub(crate) fn expect(&mut self, bytes: usize) {
        // In 30 MB, English text has a new word every 150 bytes, and text of many languages one every 100.
        self.short.expect(bytes / 128);
    }
}

/// Asks the processor for the line of its cache that `place` is in.
#[inline(always)]
fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching reads nothing, whatever the address; SSE is part of the architecture.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *place).cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prefetching reads nothing, whatever the address, and changes no register.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) &raw const *place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = place;
}
