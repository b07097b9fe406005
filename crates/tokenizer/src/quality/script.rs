//! Which script a character and a token belong to, by Unicode's property `Script`.

use unicode_script::{Script, UnicodeScript};

/// A script, or one of two kinds of characters that belong to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kind(u8);

impl Kind {
    /// How many values there are.
    pub(super) const COUNT: usize = 256;
    /// Digits, whatever their script.
    pub(super) const DIGITS: Kind = Kind(Script::Unknown as u8);
    /// Punctuation, symbols, spaces, marks and everything else that every script uses.
    pub(super) const SYMBOLS: Kind = Kind(Script::Common as u8);

    #[inline]
    pub(super) fn of(character: char) -> Kind {
        if character.is_ascii() {
            return match character {
                'a'..='z' | 'A'..='Z' => Kind(Script::Latin as u8),
                '0'..='9' => Kind::DIGITS,
                _ => Kind::SYMBOLS,
            };
        }
        match character.script() {
            // Letters that several scripts share are rare; what is left are signs.
            Script::Common | Script::Inherited | Script::Unknown if !character.is_numeric() => Kind::SYMBOLS,
            _ if character.is_numeric() && !character.is_alphabetic() => Kind::DIGITS,
            script => Kind(script as u8),
        }
    }

    /// The script of `text`'s first character that has one; else what its first character is.
    pub(super) fn of_text(text: &str) -> Kind {
        let mut kinds = text.chars().map(Kind::of);
        let first = kinds.next().unwrap_or(Kind::SYMBOLS);
        if first.is_script() { first } else { kinds.find(|kind| kind.is_script()).unwrap_or(first) }
    }

    pub(super) fn is_script(self) -> bool {
        self != Kind::DIGITS && self != Kind::SYMBOLS
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The name of a kind that `example` is of.
pub(super) fn name(kind: Kind, example: char) -> String {
    match kind {
        Kind::DIGITS => "digits".to_owned(),
        Kind::SYMBOLS => "punctuation, symbols and spaces".to_owned(),
        _ => example.script().full_name().replace('_', " "),
    }
}

/// Whether words of this script are set apart by spaces.
pub(super) fn has_words(kind: Kind) -> bool {
    let unspaced = [
        Script::Han,
        Script::Hiragana,
        Script::Katakana,
        Script::Bopomofo,
        Script::Thai,
        Script::Lao,
        Script::Khmer,
        Script::Myanmar,
        Script::Tibetan,
        Script::Javanese,
        Script::Balinese,
    ];
    kind.is_script() && !unspaced.iter().any(|&script| script as u8 == kind.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_have_the_script_that_readers_would_name() {
        let named = |character: char| name(Kind::of(character), character);
        assert_eq!(named('a'), "Latin");
        assert_eq!(named('\u{e9}'), "Latin");
        assert_eq!(named('\u{416}'), "Cyrillic");
        assert_eq!(named('\u{4e2d}'), "Han");
        assert_eq!(named('\u{3042}'), "Hiragana");
        assert_eq!(named('\u{d55c}'), "Hangul");
        assert_eq!(
            (named('7'), named('\u{663}'), named('\u{b2}')),
            ("digits".into(), "digits".into(), "digits".into())
        );
        for sign in [' ', '!', '\n', '\u{301}', '\u{1f600}', '\u{3002}', '\u{e000}'] {
            assert_eq!(Kind::of(sign), Kind::SYMBOLS, "{sign:?}");
        }
        assert_eq!(Kind::of_text(" 12the"), Kind::of('t'));
        assert_eq!(Kind::of_text(" 12"), Kind::SYMBOLS);
        assert_eq!(Kind::of_text("12."), Kind::DIGITS);
        assert!(has_words(Kind::of('a')) && !has_words(Kind::of('\u{4e2d}')) && !has_words(Kind::of(' ')));
    }
}
