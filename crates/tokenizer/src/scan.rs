//! Cuts text into words as the regular expressions of the registry do, without an expression engine.
//!
//! `scalar` asks of each word where it ends, character by character; it is the ground truth. What runs is a copy of
//! it that looks at 64 bytes at a time: `masks` gives one bit a byte for each class of characters, by the widest
//! instructions that the processor has, and `borders` finds with a few operations on 64 bits where words begin.

mod borders;
mod cl100k;
mod class;
mod cutter;
mod gpt2;
mod masks;
mod o200k;
mod scalar;
mod unicode_table;

use std::ops::Range;

use crate::pattern::Pattern;

pub(crate) use class::is_nfc_inert;
pub(crate) use cutter::{Cutter, Words};

/// Calls `word` with the byte range of each word of `text`, in order. The ranges cover the text without gaps.
pub(crate) fn for_each_word(pattern: Pattern, text: &str, mut word: impl FnMut(Range<usize>)) {
    let mut cutter = Cutter::new(pattern);
    let mut start = 0;
    while start < text.len() {
        let from = start;
        for &end in cutter.cut(&text[from..]).ends {
            let end = from + end as usize;
            word(start..end);
            start = end;
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
