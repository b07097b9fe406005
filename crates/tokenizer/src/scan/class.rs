//! Classes of characters, Unicode 16.

use std::sync::LazyLock;

use super::unicode_table::RUNS;

/// `\p{L}`
pub(super) const LETTER: u8 = 1;
/// `\p{N}`
pub(super) const NUMBER: u8 = 2;
/// `\s`
pub(super) const SPACE: u8 = 4;
/// `[\r\n]`
pub(super) const NEWLINE: u8 = 8;
/// `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
pub(super) const UPPER: u8 = 16;
/// `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
pub(super) const LOWER: u8 = 32;
/// `[^\s\p{L}\p{N}]`
pub(super) const OTHER: u8 = 64;
/// A text of such characters only is in NFC.
const NFC_INERT: u8 = 128;

/// The class of each code point: code point / 256 chooses a block.
pub(super) struct Classes {
    ascii: [u8; 128],
    block_of: Vec<u16>,
    blocks: Vec<[u8; 256]>,
}

impl Classes {
    /// The one table of the process; about 50 KB, made on first use.
    pub(super) fn get() -> &'static Classes {
        static CLASSES: LazyLock<Classes> = LazyLock::new(Classes::expand);
        &CLASSES
    }

    fn expand() -> Classes {
        let mut flat = vec![0u8; 0x110000];
        let ends = RUNS.iter().skip(1).map(|run| run.0).chain([0x110000]);
        for (&(start, class), end) in RUNS.iter().zip(ends) {
            let other = if class & (LETTER | NUMBER | SPACE) == 0 { OTHER } else { 0 };
            flat[start as usize..end as usize].fill(class | other);
        }
        let mut classes = Classes { ascii: [0; 128], block_of: Vec::new(), blocks: Vec::new() };
        classes.ascii.copy_from_slice(&flat[..128]);
        for block in flat.chunks_exact(256) {
            let known = classes.blocks.iter().position(|known| known == block);
            let at = known.unwrap_or_else(|| {
                let mut copy = [0; 256];
                copy.copy_from_slice(block);
                classes.blocks.push(copy);
                classes.blocks.len() - 1
            });
            classes.block_of.push(at as u16);
        }
        classes
    }

    #[inline(always)]
    pub(super) fn ascii(&self, byte: u8) -> u8 {
        self.ascii[usize::from(byte & 0x7F)]
    }

    /// The classes of the 64 code points from `page` times 64 on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn page(&self, page: usize) -> &[u8; 64] {
        let block = &self.blocks[usize::from(self.block_of[page / 4])];
        block[page % 4 * 64..].first_chunk().expect("a block has four pages")
    }

    /// Class and length of the character at `at`, which begins with a byte of 0x80 or more.
    #[inline(always)]
    pub(super) fn beyond_ascii(&self, text: &[u8], at: usize) -> (u8, usize) {
        let tail = |offset: usize| u32::from(text[at + offset] & 0x3F);
        let first = u32::from(text[at]);
        let (code, length) = match first {
            ..0xE0 => ((first & 0x1F) << 6 | tail(1), 2),
            0xE0..0xF0 => ((first & 0x0F) << 12 | tail(1) << 6 | tail(2), 3),
            0xF0.. => ((first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3), 4),
        };
        let block = self.block_of[(code >> 8) as usize];
        (self.blocks[usize::from(block)][(code & 0xFF) as usize], length)
    }
}

/// Whether `text` is in NFC for the reason that none of its characters can ever take part in a composition.
pub(crate) fn is_nfc_inert(text: &str) -> bool {
    if text.is_ascii() {
        return true;
    }
    let classes = Classes::get();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] < 0x80 {
            at += 1;
            continue;
        }
        let (class, length) = classes.beyond_ascii(bytes, at);
        if class & NFC_INERT == 0 {
            return false;
        }
        at += length;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::utils::SysRegex;
    use unicode_normalization_alignments::char::canonical_combining_class;
    use unicode_normalization_alignments::{IsNormalized, is_nfc_quick};

    #[test]
    fn every_code_point_has_the_class_that_the_regular_expressions_see() {
        let classes = Classes::get();
        let text: String = (0..=0x10FFFF).filter_map(char::from_u32).collect();
        let expressions = [
            (r"\p{L}", LETTER),
            (r"\p{N}", NUMBER),
            (r"\s", SPACE),
            (r"[\r\n]", NEWLINE),
            (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", UPPER),
            (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", LOWER),
            (r"[^\s\p{L}\p{N}]", OTHER),
        ];
        for (expression, bit) in expressions {
            let regex = SysRegex::new(expression).unwrap();
            let expected: Vec<usize> = regex.find_iter(&text).map(|(start, _)| start).collect();
            let ours: Vec<usize> = text
                .char_indices()
                .filter(|&(at, character)| {
                    let class = match u8::try_from(character) {
                        Ok(byte) if byte < 0x80 => classes.ascii(byte),
                        _ => classes.beyond_ascii(text.as_bytes(), at).0,
                    };
                    class & bit != 0
                })
                .map(|(at, _)| at)
                .collect();
            assert!(ours == expected, "{expression}");
        }
    }

    #[test]
    fn inert_characters_are_starters_that_the_quick_check_allows() {
        for character in (0..=0x10FFFF).filter_map(char::from_u32) {
            let allowed = is_nfc_quick(std::iter::once(character)) == IsNormalized::Yes;
            let expected = allowed && canonical_combining_class(character) == 0;
            assert_eq!(is_nfc_inert(character.encode_utf8(&mut [0; 4])), expected, "{character:?}");
        }
    }
}
