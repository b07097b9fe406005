//! Texts whose borders between words lie where a scanner of blocks could miss them.

/// A text in which a border of some kind lies `offset` bytes from its start, behind nothing but `filler`.
pub(crate) fn text_with_border_at(filler: char, offset: usize, border: (&str, &str)) -> String {
    let mut text = "b".repeat(offset % filler.len_utf8());
    while text.len() < offset {
        text.push(filler);
    }
    text.extend([border.0, border.1]);
    text
}

/// What stands before a border: letters of each length in UTF-8 and of each case, and the other classes.
pub(crate) const FILLERS: &[char] =
    &['a', 'Q', '\u{e9}', '\u{4e2d}', '\u{20000}', '\u{301}', ' ', '\n', '7', '!', '\u{1f600}', '\u{a0}'];
