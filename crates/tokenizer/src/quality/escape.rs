//! Tokens as a terminal may show them.

use std::fmt::Write;

/// `bytes` in a form that is safe to print and stands for nothing else: control characters, marks that would join what
/// stands before them, and characters that turn the direction of writing are escaped, bytes that are not UTF-8 are
/// `\xNN`, a backslash is doubled.
pub(super) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                ' ' => text.push(' '),
                '\\' => text.push_str("\\\\"),
                '\'' | '"' => text.push(character),
                // Rust's own escaping leaves every other printable character as it is.
                _ => text.extend(character.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_that_moves_a_cursor_or_hides_is_printed() {
        assert_eq!(escaped(b" the"), " the");
        assert_eq!(escaped(b"\r\n\t\x1b[2J\0"), "\\r\\n\\t\\u{1b}[2J\\0");
        assert_eq!(
            escaped("\u{301}e \u{202e}x\u{200f}\u{200b}\u{ad}".as_bytes()),
            "\\u{301}e \\u{202e}x\\u{200f}\\u{200b}\\u{ad}"
        );
        assert_eq!(escaped(b"\xe4\xb8ok\xff"), "\\xe4\\xb8ok\\xff");
        assert_eq!(escaped("\u{4e2d}\u{6587} \"it's\" \\n".as_bytes()), "\u{4e2d}\u{6587} \"it's\" \\\\n");
    }
}
