//! `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//!
//! Qwen 2 has `\p{N}` in place of `\p{N}{1,3}`.

use super::class::{LETTER, NEWLINE, NUMBER, OTHER, SPACE};
use super::scalar::Scanner;

impl Scanner<'_> {
    /// The end of the word at `start`, numbers in groups of at most `DIGITS`.
    #[inline(always)]
    pub(super) fn cl100k_end<const DIGITS: usize>(&self, start: usize) -> usize {
        let (class, length) = self.class(start);
        let after = start + length;
        if class & LETTER != 0 {
            return self.run(after, LETTER);
        }
        if class & NUMBER != 0 {
            return self.number_end::<DIGITS>(after);
        }
        if let Some(end) = self.contraction_end(start) {
            return end;
        }
        let (next, next_length) = self.class(after);
        if class & NEWLINE == 0 && next & LETTER != 0 {
            return self.run(after + next_length, LETTER);
        }
        if class & OTHER != 0 {
            return self.run(self.run(after, OTHER), NEWLINE);
        }
        debug_assert!(class & SPACE != 0);
        if self.text[start] == b' ' && next & OTHER != 0 {
            return self.run(self.run(after + next_length, OTHER), NEWLINE);
        }
        self.line_end(start)
    }

    /// The end of a group of numbers whose first ends at `after`.
    #[inline(always)]
    pub(super) fn number_end<const DIGITS: usize>(&self, after: usize) -> usize {
        let mut end = after;
        for _ in 1..DIGITS {
            let (class, length) = self.class(end);
            if class & NUMBER == 0 {
                break;
            }
            end += length;
        }
        end
    }
}
