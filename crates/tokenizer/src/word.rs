//! Words as keys of hash tables: those of at most 15 bytes fit in 128 bits, length included.

use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

/// The longest word that packs.
pub(crate) const PACKED_BYTES: usize = 15;

/// The word's bytes, zeros, and its length in the last byte; `None` for a longer word.
#[inline(always)]
pub(crate) fn pack(text: &[u8], word: Range<usize>) -> Option<u128> {
    let length = word.len();
    if length > PACKED_BYTES {
        return None;
    }
    let mut bytes = [0; 16];
    match text.get(word.start..word.start + 16) {
        // Away from the text's end: one load and a mask, whatever the length.
        Some(window) => bytes.copy_from_slice(window),
        None => bytes[..length].copy_from_slice(&text[word]),
    }
    let kept = u128::from_le_bytes(bytes) & ((1u128 << (8 * length)) - 1);
    Some(kept | ((length as u128) << 120))
}

/// Appends the bytes of a packed word.
pub(crate) fn unpack(packed: u128, bytes: &mut Vec<u8>) {
    let all = packed.to_le_bytes();
    let length = usize::from(all[PACKED_BYTES]).min(PACKED_BYTES);
    bytes.extend_from_slice(&all[..length]);
}

/// Mixes a packed word into 64 well-spread bits.
#[inline(always)]
pub(crate) fn mix(packed: u128) -> u64 {
    let low = (packed as u64) ^ 0x9E37_79B9_7F4A_7C15;
    let high = ((packed >> 64) as u64) ^ 0xD6E8_FEB8_6659_FD93;
    fold(fold(low, 0xA076_1D64_78BD_642F) ^ high, 0xE703_7ED1_A0B4_28DB)
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A hash of any bytes.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let (eights, rest) = bytes.as_chunks::<8>();
    let mut hash = bytes.len() as u64 ^ 0x9E37_79B9_7F4A_7C15;
    for &eight in eights {
        hash = fold(hash ^ u64::from_le_bytes(eight), 0xD6E8_FEB8_6659_FD93);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    fold(hash ^ u64::from_le_bytes(last), 0xA076_1D64_78BD_642F)
}

/// A fast hasher for keys that come from text being read once, not from an adversary who sees our timing.
pub(crate) type BuildFoldHasher = BuildHasherDefault<FoldHasher>;

/// Folds 128-bit products of the input, eight bytes at a time.
#[derive(Default)]
pub(crate) struct FoldHasher(u64);

impl Hasher for FoldHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut groups = bytes.chunks_exact(8);
        for group in &mut groups {
            let mut eight = [0; 8];
            eight.copy_from_slice(group);
            self.write_u64(u64::from_le_bytes(eight));
        }
        let mut rest = [0; 8];
        rest[..groups.remainder().len()].copy_from_slice(groups.remainder());
        self.write_u64(u64::from_le_bytes(rest) ^ (bytes.len() as u64) << 56);
    }

    fn write_u32(&mut self, key: u32) {
        self.write_u64(u64::from(key));
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = fold(self.0 ^ key ^ 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93);
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = mix(key);
    }

    fn write_usize(&mut self, key: usize) {
        self.write_u64(key as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_every_length_unpack_to_themselves_at_the_end_of_text_and_before_it() {
        let text = b"0123456789abcdefghijklmnopqrstuvwxyz";
        for length in 0..=PACKED_BYTES {
            for start in [0, 5, text.len() - length] {
                let mut bytes = Vec::new();
                unpack(pack(text, start..start + length).unwrap(), &mut bytes);
                assert_eq!(bytes, &text[start..start + length]);
            }
        }
        assert_eq!(pack(text, 0..16), None);
        assert_ne!(pack(b"a\0", 0..1), pack(b"a\0", 0..2), "a trailing zero byte is part of the word");
    }
}
