//! Cuts text into words as the regular expressions of the registry do, without an expression engine.
//!
//! Each scanner answers one question, "where does the word that begins here end?", in one pass over the
//! characters. This is the ground truth of the crate; the tests hold it against the `tokenizers` crate.

mod cl100k;
mod class;
mod gpt2;
mod o200k;
mod unicode_table;

use std::ops::Range;

use crate::pattern::Pattern;
use class::Classes;

pub(crate) use class::is_nfc_inert;

/// Calls `word` with the byte range of each word of `text`, in order. The ranges cover the text without gaps.
#[inline]
pub(crate) fn for_each_word(pattern: Pattern, text: &str, word: impl FnMut(Range<usize>)) {
    let scanner = Scanner { text: text.as_bytes(), classes: Classes::get() };
    match pattern {
        Pattern::Gpt2 => scanner.words(Scanner::gpt2_end, word),
        Pattern::Cl100k | Pattern::Llama3 => scanner.words(Scanner::cl100k_end::<3>, word),
        Pattern::Qwen2 => scanner.words(Scanner::cl100k_end::<1>, word),
        Pattern::O200k => scanner.words(Scanner::o200k_end, word),
    }
}

/// UTF-8 text, and the classes of its characters.
struct Scanner<'a> {
    text: &'a [u8],
    classes: &'static Classes,
}

impl Scanner<'_> {
    #[inline(always)]
    fn words(&self, end_of: impl Fn(&Self, usize) -> usize, mut word: impl FnMut(Range<usize>)) {
        let mut start = 0;
        while start < self.text.len() {
            let end = end_of(self, start);
            debug_assert!(end > start);
            word(start..end);
            start = end;
        }
    }

    /// The class of the character at `at` and its length in bytes; (0, 0) at the end of the text.
    #[inline(always)]
    fn class(&self, at: usize) -> (u8, usize) {
        match self.text.get(at) {
            None => (0, 0),
            Some(&byte) if byte < 0x80 => (self.classes.ascii(byte), 1),
            Some(_) => self.classes.beyond_ascii(self.text, at),
        }
    }

    /// The end of the run of characters at `at` whose class has a bit of `mask`.
    #[inline(always)]
    fn run(&self, mut at: usize, mask: u8) -> usize {
        loop {
            let (class, length) = self.class(at);
            if class & mask == 0 {
                return at;
            }
            at += length;
        }
    }

    /// `\s+(?!\S)|\s+` for white space at `start`: a run before text gives up its last character.
    #[inline(always)]
    fn space_end(&self, start: usize) -> usize {
        let (mut last, mut end) = (start, start);
        loop {
            let (class, length) = self.class(end);
            if class & class::SPACE == 0 {
                break;
            }
            last = end;
            end += length;
        }
        if end == self.text.len() || last == start { end } else { last }
    }

    /// `\s*[\r\n]+|\s+(?!\S)|\s+` for white space at `start`: a run ends after its last line break.
    #[inline(always)]
    fn line_end(&self, start: usize) -> usize {
        let (mut last, mut end, mut after_break) = (start, start, None);
        loop {
            let (class, length) = self.class(end);
            if class & class::SPACE == 0 {
                break;
            }
            last = end;
            end += length;
            if class & class::NEWLINE != 0 {
                after_break = Some(end);
            }
        }
        match after_break {
            Some(after_break) => after_break,
            None if end == self.text.len() || last == start => end,
            None => last,
        }
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at `at`: its end. U+017F folds to `s`.
    #[inline(always)]
    fn contraction_end(&self, at: usize) -> Option<usize> {
        if self.text.get(at) != Some(&b'\'') {
            return None;
        }
        let lower = |offset: usize| self.text.get(at + offset).map_or(0, |byte| byte | 0x20);
        match (lower(1), lower(2)) {
            (b's' | b't' | b'm' | b'd', _) => Some(at + 2),
            (b'r' | b'v', b'e') | (b'l', b'l') => Some(at + 3),
            _ if self.text[at + 1..].starts_with("\u{17f}".as_bytes()) => Some(at + 3),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alphabet;
    use crate::sample_text::{Random, random_text, seed};
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

    fn ours(pattern: Pattern, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        for_each_word(pattern, text, |word| words.push(&text[word]));
        words
    }

    fn theirs(pre_tokenizer: &PreTokenizerWrapper, text: &str) -> Vec<String> {
        let mut split = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut split).unwrap();
        let words = split.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        words
            .into_iter()
            .filter(|(word, _, _)| !word.is_empty())
            .map(|(word, _, _)| String::from_utf8(alphabet::unspell(word).unwrap()).unwrap())
            .collect()
    }

    fn assert_same(pattern: Pattern, pre_tokenizer: &PreTokenizerWrapper, text: &str) {
        assert_eq!(ours(pattern, text), theirs(pre_tokenizer, text), "{pattern}: {text:?}");
    }

    fn pre_tokenizer(pattern: Pattern) -> PreTokenizerWrapper {
        serde_json::from_value(pattern.pre_tokenizer()).unwrap()
    }

    #[test]
    fn words_equal_the_regular_expressions_on_random_text() {
        let mut random = Random(seed());
        let rounds = std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4000);
        for pattern in Pattern::ALL {
            let pre_tokenizer = pre_tokenizer(pattern);
            for _ in 0..rounds {
                assert_same(pattern, &pre_tokenizer, &random_text(&mut random, 24));
            }
        }
    }

    #[test]
    fn every_code_point_is_split_alike_among_neighbours_of_every_class() {
        // Every class has been checked code point by code point; here a sample of the higher planes stands for them.
        let higher = (0x20000..0x110000).step_by(61);
        let characters: Vec<char> = (0..0x20000u32).chain(higher).filter_map(char::from_u32).collect();
        for pattern in [Pattern::Gpt2, Pattern::Cl100k, Pattern::O200k, Pattern::Qwen2] {
            let pre_tokenizer = pre_tokenizer(pattern);
            for group in characters.chunks(512) {
                let mut text = String::new();
                for &c in group {
                    text.extend([
                        'a', c, 'B', c, c, ' ', c, '\u{301}', c, '1', c, '\n', c, '!', c, '\'', c, ' ', ' ',
                    ]);
                }
                assert_same(pattern, &pre_tokenizer, &text);
            }
        }
    }

    #[test]
    fn spaces_before_text_give_up_their_last() {
        assert_eq!(ours(Pattern::Gpt2, "a   b \u{a0}c  "), ["a", "  ", " b", " ", "\u{a0}", "c", "  "]);
        assert_eq!(ours(Pattern::Cl100k, "a\u{a0}b \n\n  x"), ["a", "\u{a0}b", " \n\n", " ", " x"]);
        assert_eq!(ours(Pattern::O200k, "helloWorld's \u{301}x"), ["hello", "World's", " \u{301}x"]);
        assert_eq!(ours(Pattern::Qwen2, "1234 it'\u{17f}"), ["1", "2", "3", "4", " it", "'\u{17f}"]);
    }
}
