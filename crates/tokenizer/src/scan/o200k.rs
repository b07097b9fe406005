//! With P = `[^\r\n\p{L}\p{N}]`, U = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, L = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]` and
//! C = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`:
//!
//! `P?U*L+C?|P?U+L*C?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
//!
//! Modifier and other letters and marks are in both U and L, and marks are in P too, so the expression backtracks;
//! the cases below are what that comes to.

use super::class::{LETTER, LOWER, NEWLINE, NUMBER, OTHER, SPACE, UPPER};
use super::scalar::Scanner;

impl Scanner<'_> {
    /// The end of the word at `start`.
    #[inline(always)]
    pub(super) fn o200k_end(&self, start: usize) -> usize {
        let (class, length) = self.class(start);
        let after = start + length;
        if class & NUMBER != 0 {
            return self.number_end::<3>(after);
        }
        if let Some(end) = self.cased_end(start, class, after) {
            return self.contraction_end(end).unwrap_or(end);
        }
        if class & OTHER != 0 {
            return self.slashes_end(self.run(after, OTHER));
        }
        debug_assert!(class & SPACE != 0);
        let (next, next_length) = self.class(after);
        if self.text[start] == b' ' && next & OTHER != 0 {
            return self.slashes_end(self.run(after + next_length, OTHER));
        }
        self.line_end(start)
    }

    /// `P?U*L+|P?U+L*` at `start`, where a character of `class` ends at `after`.
    #[inline(always)]
    fn cased_end(&self, start: usize, class: u8, after: usize) -> Option<usize> {
        if class & LETTER != 0 {
            return match self.lowered_end(start) {
                Lowered::Ends(end) | Lowered::OnlyUpper(end) => Some(end),
            };
        }
        if class & NEWLINE != 0 {
            return None;
        }
        match self.lowered_end(after) {
            Lowered::Ends(end) => Some(end),
            // `P?` gives a mark back, and the mark alone is `U*L+`.
            Lowered::OnlyUpper(_) if class & LOWER != 0 => Some(after),
            Lowered::OnlyUpper(end) if end > after => Some(end),
            Lowered::OnlyUpper(_) => None,
        }
    }

    /// `U*L+` at `start`: the run of U and, where a letter that is only in L follows, the run of L from there; else
    /// `U*` gives characters back until the last that is in L too.
    #[inline(always)]
    fn lowered_end(&self, start: usize) -> Lowered {
        let (mut end, mut last_in_both) = (start, None);
        loop {
            let (class, length) = self.class(end);
            if class & UPPER == 0 {
                if class & LOWER != 0 {
                    return Lowered::Ends(self.run(end + length, LOWER));
                }
                break;
            }
            end += length;
            if class & LOWER != 0 {
                last_in_both = Some(end);
            }
        }
        last_in_both.map_or(Lowered::OnlyUpper(end), Lowered::Ends)
    }

    /// `[\r\n/]*` at `at`.
    #[inline(always)]
    fn slashes_end(&self, mut at: usize) -> usize {
        while matches!(self.text.get(at), Some(b'\r' | b'\n' | b'/')) {
            at += 1;
        }
        at
    }
}

enum Lowered {
    /// `U*L+` matches up to here.
    Ends(usize),
    /// It does not: there is only a run of U, perhaps empty, up to here.
    OnlyUpper(usize),
}
