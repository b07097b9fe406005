//! Where a long word may be cut without changing its ids.

use crate::word::mix;

/// Which characters stand side by side in a token. Between two that never do, no merge happens: its token would have
/// both. So the word may be cut there, and its parts, short ones that come again, are looked up one by one.
///
/// It errs to one side only: it may say that two characters are joined when they are not.
pub(crate) struct Joints {
    /// A bit for each two characters of ASCII.
    ascii: Box<[u64]>,
    /// A bit for each hash of two other characters.
    pairs: Box<[u64]>,
    /// A bit for each last and first byte where a token has only a part of a character.
    parts: Box<[u64]>,
}

impl Joints {
    /// From the bytes of every token that merging makes.
    pub(crate) fn new(tokens: &[Vec<u8>]) -> Self {
        let beyond = tokens.iter().flatten().filter(|byte| !byte.is_ascii()).count();
        // Few of the bits are set, so that few other pairs are taken for one.
        let bits = (beyond * 8).next_power_of_two().max(1 << 12);
        let zeros = |bits: usize| vec![0; bits / 64].into_boxed_slice();
        let mut joints = Self { ascii: zeros(1 << 14), pairs: zeros(bits), parts: zeros(1 << 16) };
        for token in tokens {
            for at in 1..token.len() {
                if is_tail(token[at]) {
                    continue;
                }
                let first = (0..at).rev().find(|&first| !is_tail(token[first]));
                let left = first.filter(|&first| length(token[first]) == at - first);
                let right = token.get(at..at + length(token[at]));
                match (left, right) {
                    (Some(left), Some(right)) => joints.join(number(&token[left..at]), number(right)),
                    _ => set(&mut joints.parts, bytes(token[at - 1], token[at])),
                }
            }
        }
        joints
    }

    /// Calls `part` with the start and the end of each part of a word, which is UTF-8 and not empty.
    #[inline(always)]
    pub(crate) fn split(&self, word: &[u8], mut part: impl FnMut(usize, usize)) {
        let mut start = 0;
        let mut at = length(word[0]).min(word.len());
        let mut left = number(&word[..at]);
        while at < word.len() {
            let end = (at + length(word[at])).min(word.len());
            let right = number(&word[at..end]);
            if !self.joined(left, right) && !is_set(&self.parts, bytes(word[at - 1], word[at])) {
                part(start, at);
                start = at;
            }
            (left, at) = (right, end);
        }
        part(start, at);
    }

    fn join(&mut self, left: u32, right: u32) {
        match ascii(left, right) {
            Some(place) => set(&mut self.ascii, place),
            None => {
                let place = self.place(left, right);
                set(&mut self.pairs, place);
            }
        }
    }

    #[inline(always)]
    fn joined(&self, left: u32, right: u32) -> bool {
        match ascii(left, right) {
            Some(place) => is_set(&self.ascii, place),
            None => is_set(&self.pairs, self.place(left, right)),
        }
    }

    #[inline(always)]
    fn place(&self, left: u32, right: u32) -> usize {
        mix(u128::from(left) << 64 | u128::from(right)) as usize & (self.pairs.len() * 64 - 1)
    }
}

/// The place of two characters of ASCII.
#[inline(always)]
fn ascii(left: u32, right: u32) -> Option<usize> {
    ((left | right) < 0x80).then_some((left << 7 | right) as usize)
}

/// The bytes of a character as a number.
#[inline(always)]
fn number(character: &[u8]) -> u32 {
    character.iter().fold(0, |number, &byte| number << 8 | u32::from(byte))
}

fn bytes(left: u8, right: u8) -> usize {
    usize::from(left) << 8 | usize::from(right)
}

fn set(bits: &mut [u64], at: usize) {
    bits[at / 64] |= 1 << (at % 64);
}

fn is_set(bits: &[u64], at: usize) -> bool {
    bits[at / 64] >> (at % 64) & 1 == 1
}

fn is_tail(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// Bytes of the character that begins with `first`.
fn length(first: u8) -> usize {
    match first {
        ..0xC0 => 1,
        0xC0..0xE0 => 2,
        0xE0..0xF0 => 3,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_only_between_characters_that_no_token_has_side_by_side() {
        let tokens: [&[u8]; 4] = [b"ab", "\u{4e2d}\u{6587}".as_bytes(), b"\x87\xe4", b"cde"];
        let joints = Joints::new(&tokens.map(<[u8]>::to_vec));
        let parts = |word: &'static str| {
            let mut parts = Vec::new();
            joints.split(word.as_bytes(), |start, end| parts.push(&word[start..end]));
            parts
        };
        assert_eq!(parts("abcde"), ["ab", "cde"]);
        assert_eq!(parts("ba"), ["b", "a"]);
        assert_eq!(
            parts("\u{4e2d}\u{6587}\u{4e2d}"),
            ["\u{4e2d}\u{6587}\u{4e2d}"],
            "a token has a part of it"
        );
        assert_eq!(parts("\u{6587}\u{65e5}"), ["\u{6587}", "\u{65e5}"]);
    }
}
