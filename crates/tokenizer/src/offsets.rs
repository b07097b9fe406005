//! Where in the text each id comes from.

use std::borrow::Cow;
use std::ops::Range;

use tokenizers::normalizer::{NormalizedString, Range as Of};

use crate::alphabet;
use crate::error::TokenizerError;
use crate::nfc::nfc;
use crate::special::{AddedTokens, Piece};
use crate::tokenizer::{Engine, Tokenizer};

impl Tokenizer {
    /// The ids of [`Tokenizer::encode`], and for each the range of bytes of `text` that it stands for.
    ///
    /// They are the ranges that the `tokenizers` crate gives. They begin and end between characters: tokens that share
    /// a character all cover it. Apart from that they follow each other without gaps, but for marks that NFC composed
    /// into the letter before them, which are in no range. Where the crate serves the file, its normalizer may drop
    /// more, and its post-processor may leave spaces out. Errors: as [`Tokenizer::encode`].
    pub fn encode_with_offsets(&self, text: &str) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        self.offsets(text, true)
    }

    /// The ids of [`Tokenizer::encode_document`], with ranges as [`Tokenizer::encode_with_offsets`] has them.
    pub fn encode_document_with_offsets(
        &self,
        text: &str,
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        self.offsets(text, false)
    }

    fn offsets(&self, text: &str, special: bool) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        if let Engine::Reference(reference) = self.engine() {
            return reference.offsets(text, special);
        }
        let mut ids = Vec::new();
        self.encode_with(text, special, &mut ids)?;
        let normalizes = self.normalizes() && matches!(nfc(text), Cow::Owned(_));
        let ranges = if normalizes {
            let aligned = Aligned::new(self, text, special);
            self.walk(&ids, &aligned.text, |range| aligned.original(range))
        } else {
            self.walk(&ids, text, |range| whole_characters(text, range))
        };
        Ok((ids, ranges))
    }

    /// The ranges of `ids`, whose bytes put together are `text`.
    fn walk(
        &self,
        ids: &[u32],
        text: &str,
        original: impl Fn(Range<usize>) -> Range<usize>,
    ) -> Vec<Range<usize>> {
        let mut at = 0;
        let next = |&id: &u32| {
            let start = at;
            at = (at + self.length_at(id, &text.as_bytes()[at..])).min(text.len());
            original(start..at)
        };
        ids.iter().map(next).collect()
    }

    /// How many bytes `id` stands for at the beginning of `rest`. An added token may be spelled like a merged one that
    /// stands for other bytes: text tells which of them it was.
    fn length_at(&self, id: u32, rest: &[u8]) -> usize {
        let token = self.token_bytes(id).unwrap_or_default();
        if rest.starts_with(token) {
            return token.len();
        }
        let merged = std::str::from_utf8(token).ok().and_then(alphabet::unspell);
        merged.map_or(token.len(), |bytes| bytes.len())
    }
}

/// `range`, widened to the characters that it touches.
fn whole_characters(text: &str, Range { mut start, mut end }: Range<usize>) -> Range<usize> {
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// A text in NFC, between added tokens, and where each byte of it comes from.
struct Aligned {
    text: String,
    origin: Vec<Range<usize>>,
}

impl Aligned {
    fn new(tokenizer: &Tokenizer, text: &str, special: bool) -> Self {
        let mut aligned = Self { text: String::with_capacity(text.len()), origin: Vec::new() };
        let mut from = 0;
        let raw = tokenizer.added_tokens().iter().filter(|token| !token.normalized);
        AddedTokens::new(raw).split(text, special, |piece| match piece {
            Piece::Token(id) => {
                let content = tokenizer.added_token(id).map_or("", |token| token.content.as_str());
                aligned.text.push_str(content);
                aligned.origin.extend(content.bytes().map(|_| from..from + content.len()));
                from += content.len();
            }
            Piece::Text(piece) => {
                aligned.push_nfc(piece, from);
                from += piece.len();
            }
        });
        aligned
    }

    /// Appends the NFC of `piece`, which begins at `from`, with the alignments of the `tokenizers` crate.
    fn push_nfc(&mut self, piece: &str, from: usize) {
        let mut normalized = NormalizedString::from(piece);
        normalized.nfc();
        for (at, character) in normalized.get().char_indices() {
            let length = character.len_utf8();
            let origin = normalized.convert_offsets(Of::Normalized(at..at + length)).unwrap_or_default();
            self.origin.extend((0..length).map(|_| from + origin.start..from + origin.end));
        }
        self.text.push_str(normalized.get());
    }

    /// The range of the original text that `range` of the normalized one comes from.
    fn original(&self, range: Range<usize>) -> Range<usize> {
        match self.origin.get(range).and_then(|origins| Some((origins.first()?, origins.last()?))) {
            Some((first, last)) => first.start..last.end,
            None => 0..0,
        }
    }
}
