use sha2::{Digest, Sha256};

/// What a permutation depends on. Spelled out and hashed, so that no two uses share a random sequence by accident.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// The order of files in an epoch.
    Files,
    /// The order of one file's segments in an epoch.
    Segments {
        /// The file's path in the list.
        path: &'a str,
    },
    /// The order of documents in a window.
    Window {
        /// Number of the window in its epoch, from 0.
        index: u64,
    },
}

/// A permutation of `0..length` that depends on nothing but its arguments.
///
/// Fisher–Yates from the last element down, driven by SplitMix64 (Steele et al., 2014), whose start is the first eight
/// bytes (little endian) of the SHA-256 of `candlewick order 1|seed|epoch|key`; bounded draws by Lemire's method with
/// rejection (2019), so no index is favoured.
pub fn permutation(seed: u64, epoch: u64, key: Key<'_>, length: usize) -> Vec<u32> {
    let text = match key {
        Key::Files => format!("candlewick order 1|{seed}|{epoch}|files"),
        Key::Segments { path } => format!("candlewick order 1|{seed}|{epoch}|segments|{path}"),
        Key::Window { index } => format!("candlewick order 1|{seed}|{epoch}|window|{index}"),
    };
    let digest = Sha256::digest(text.as_bytes());
    let mut random = SplitMix64(u64::from_le_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes")));
    let mut order: Vec<u32> = (0..length as u32).collect();
    for i in (1..length).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    order
}

struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`, each equally likely.
    fn below(&mut self, bound: u64) -> u64 {
        loop {
            let product = u128::from(self.next()) * u128::from(bound);
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_occurs_once_and_each_key_has_its_own_order() {
        let keys =
            [Key::Files, Key::Segments { path: "a" }, Key::Segments { path: "b" }, Key::Window { index: 0 }];
        let orders: Vec<_> = keys.iter().map(|&k| permutation(1, 1, k, 100)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        }
        for a in 0..orders.len() {
            assert!(orders[a + 1..].iter().all(|b| *b != orders[a]));
        }
        assert_ne!(permutation(1, 1, Key::Files, 100), permutation(1, 2, Key::Files, 100));
        assert_ne!(permutation(1, 1, Key::Files, 100), permutation(2, 1, Key::Files, 100));
    }

    #[test]
    fn the_order_of_a_known_key_never_changes() {
        // A stream in a checkpoint depends on these numbers; computed apart from this code, in Python (scripts/fixtures/permutation.py).
        assert_eq!(permutation(1, 1, Key::Files, 8), include!("../../tests/fixtures/permutation.in"));
    }

    #[test]
    fn nothing_and_one_have_one_order() {
        assert!(permutation(1, 1, Key::Files, 0).is_empty());
        assert_eq!(permutation(1, 1, Key::Files, 1), [0]);
    }
}
