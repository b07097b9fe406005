//! `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

use super::class::{LETTER, NUMBER, OTHER, SPACE};
use super::scalar::Scanner;

impl Scanner<'_> {
    /// The end of the word at `start`.
    #[inline(always)]
    pub(super) fn gpt2_end(&self, start: usize) -> usize {
        let (mut class, length) = self.class(start);
        let mut after = start + length;
        if class & SPACE != 0 {
            if self.text[start] != b' ' {
                return self.space_end(start);
            }
            let (next, length) = self.class(after);
            if next == 0 || next & SPACE != 0 {
                return self.space_end(start);
            }
            class = next;
            after += length;
        } else if self.text[start] == b'\'' {
            match (self.text.get(after), self.text.get(after + 1)) {
                (Some(b's' | b't' | b'm' | b'd'), _) => return after + 1,
                (Some(b'r' | b'v'), Some(b'e')) | (Some(b'l'), Some(b'l')) => return after + 2,
                _ => {}
            }
        }
        self.run(after, class & (LETTER | NUMBER | OTHER))
    }
}
