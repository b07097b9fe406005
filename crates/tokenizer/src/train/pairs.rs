//! The counts of pairs of ids.

use std::collections::HashMap;

use crate::word::BuildFoldHasher;

/// Two ids as one key; keys order as (left, right) does.
pub(super) fn pair_key(left: u32, right: u32) -> u64 {
    (u64::from(left) << 32) | u64::from(right)
}

/// How often each pair occurs, in 64 bits.
#[derive(Default)]
pub(super) struct PairCounts {
    counts: HashMap<u64, i64, BuildFoldHasher>,
}

impl PairCounts {
    pub(super) fn add(&mut self, pair: u64, change: i64) {
        *self.counts.entry(pair).or_default() += change;
    }

    pub(super) fn get(&self, pair: u64) -> i64 {
        self.counts.get(&pair).copied().unwrap_or_default()
    }
}
