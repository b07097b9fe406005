//! Finding added tokens in raw text: leftmost, then longest, as the `tokenizers` crate does.

use std::collections::HashMap;

use memchr::memmem::Finder;

use crate::definition::AddedToken;
use crate::word::BuildFoldHasher;

/// A set of added tokens to look for.
pub(crate) struct AddedTokens {
    starts: Starts,
    /// Lengths in bytes of the tokens, longest first.
    lengths: Vec<usize>,
    /// Id, and whether the token is special.
    tokens: HashMap<Box<[u8]>, (u32, bool), BuildFoldHasher>,
    all_special: bool,
}

/// How the places are found where a token may begin.
enum Starts {
    /// All tokens begin with these bytes.
    Prefix(Box<Finder<'static>>),
    /// All tokens begin with one of two bytes.
    Two(u8, u8),
    /// Those are set that a token begins with.
    Any(Box<[bool; 256]>),
}

impl Starts {
    fn of(tokens: &[&[u8]]) -> Self {
        let mut any = Box::new([false; 256]);
        for token in tokens {
            any[usize::from(token[0])] = true;
        }
        let first: Vec<u8> = (0..=255).filter(|&byte| any[usize::from(byte)]).collect();
        match first.as_slice() {
            [_] => {
                let shared = tokens.iter().skip(1).fold(tokens[0], |shared, token| {
                    let length = shared.iter().zip(*token).take_while(|(a, b)| a == b).count();
                    &shared[..length]
                });
                Self::Prefix(Box::new(Finder::new(shared).into_owned()))
            }
            [one, two] => Self::Two(*one, *two),
            _ => Self::Any(any),
        }
    }

    fn find(&self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Prefix(prefix) => prefix.find(text),
            Self::Two(one, two) => memchr::memchr2(*one, *two, text),
            Self::Any(any) => text.iter().position(|&byte| any[usize::from(byte)]),
        }
    }
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Text without added tokens.
    Text(&'a str),
    /// The id of an added token.
    Token(u32),
}

impl AddedTokens {
    pub(crate) fn new<'a>(tokens: impl Iterator<Item = &'a AddedToken>) -> Self {
        let tokens: Vec<&AddedToken> = tokens.filter(|token| !token.content.is_empty()).collect();
        let spelled: Vec<&[u8]> = tokens.iter().map(|token| token.content.as_bytes()).collect();
        let mut set = Self {
            starts: Starts::of(&spelled),
            lengths: spelled.iter().map(|bytes| bytes.len()).collect(),
            tokens: HashMap::default(),
            all_special: tokens.iter().all(|token| token.special),
        };
        for (token, bytes) in tokens.iter().zip(spelled) {
            set.tokens.insert(bytes.into(), (token.id, token.special));
        }
        set.lengths.sort_unstable_by(|a, b| b.cmp(a));
        set.lengths.dedup();
        set
    }

    /// Calls `piece` with the parts of `text` in order. Without `special`, special tokens are text; still nothing
    /// is looked for inside their spelling, as in the crate.
    pub(crate) fn split<'a>(&self, text: &'a str, special: bool, mut piece: impl FnMut(Piece<'a>)) {
        let mut start = 0;
        if !self.tokens.is_empty() && (special || !self.all_special) {
            let mut from = 0;
            while let Some((at, length, id, is_special)) = self.find(text.as_bytes(), from) {
                from = at + length;
                if is_special && !special {
                    continue;
                }
                if start < at {
                    piece(Piece::Text(&text[start..at]));
                }
                piece(Piece::Token(id));
                start = from;
            }
        }
        if start < text.len() {
            piece(Piece::Text(&text[start..]));
        }
    }

    /// Place, length, id and specialness of the first token at or after `from`.
    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize, u32, bool)> {
        let mut at = from;
        loop {
            let rest = text.get(at..)?;
            at += self.starts.find(rest)?;
            for &length in &self.lengths {
                let Some(&(id, special)) = text.get(at..at + length).and_then(|word| self.tokens.get(word))
                else {
                    continue;
                };
                return Some((at, length, id, special));
            }
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, content: &str, special: bool) -> AddedToken {
        AddedToken {
            id,
            content: content.to_owned(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special,
        }
    }

    #[test]
    fn the_leftmost_longest_token_is_taken_and_special_ones_only_on_request() {
        let tokens =
            [token(1, "<a>", true), token(2, "<a><b>", true), token(3, "b", false), token(4, "<<a>", false)];
        let set = AddedTokens::new(tokens.iter());
        let pieces = |text, special| {
            let mut pieces = Vec::new();
            set.split(text, special, |piece| pieces.push(piece));
            pieces
        };
        use Piece::{Text, Token};
        assert_eq!(pieces("x<a><b>y", true), [Text("x"), Token(2), Text("y")]);
        assert_eq!(pieces("<<a><b", true), [Token(4), Text("<"), Token(3)]);
        assert_eq!(pieces("x<a><b>by", false), [Text("x<a><b>"), Token(3), Text("y")]);
        assert_eq!(pieces("", true), []);
    }
}
