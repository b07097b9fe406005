//! The scanner of which everything else is a faster copy: "where does the word that begins here end?", answered
//! character by character. The tests hold it against the `tokenizers` crate, and the others against it.

use super::class::{self, Classes};
use crate::pattern::Pattern;

/// UTF-8 text, and the classes of its characters.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a [u8],
    classes: &'static Classes,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { text, classes: Classes::get() }
    }

    /// The end of the word that begins at `start`, which is before the end of the text.
    pub(super) fn end(&self, pattern: Pattern, start: usize) -> usize {
        match pattern {
            Pattern::Gpt2 => self.gpt2_end(start),
            Pattern::Cl100k | Pattern::Llama3 => self.cl100k_end::<3>(start),
            Pattern::Qwen2 => self.cl100k_end::<1>(start),
            Pattern::O200k => self.o200k_end(start),
        }
    }

    /// The class of the character at `at` and its length in bytes; (0, 0) at the end of the text.
    #[inline(always)]
    pub(super) fn class(&self, at: usize) -> (u8, usize) {
        match self.text.get(at) {
            None => (0, 0),
            Some(&byte) if byte < 0x80 => (self.classes.ascii(byte), 1),
            Some(_) => self.classes.beyond_ascii(self.text, at),
        }
    }

    /// The end of the run of characters at `at` whose class has a bit of `mask`.
    #[inline(always)]
    pub(super) fn run(&self, mut at: usize, mask: u8) -> usize {
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
    pub(super) fn space_end(&self, start: usize) -> usize {
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
    pub(super) fn line_end(&self, start: usize) -> usize {
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

    /// Where the white space at `at` ends or meets a line break, and whether it is a line break.
    pub(super) fn white_space_end(&self, mut at: usize) -> (usize, bool) {
        loop {
            let (class, length) = self.class(at);
            if class & class::SPACE == 0 || class & class::NEWLINE != 0 {
                return (at, class & class::NEWLINE != 0);
            }
            at += length;
        }
    }

    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at `at`: its end. U+017F folds to `s`.
    #[inline(always)]
    pub(super) fn contraction_end(&self, at: usize) -> Option<usize> {
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
