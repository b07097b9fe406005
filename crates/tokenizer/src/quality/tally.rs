//! Counting one document after the other; tallies of threads are added.

use std::borrow::Cow;

use super::script::Kind;
use crate::error::TokenizerError;
use crate::nfc::nfc;
use crate::tokenizer::{Engine, Tokenizer};

/// The script of each token that is whole characters; the others depend on where they stand.
pub(super) struct TokenKinds(Vec<Option<Kind>>);

impl TokenKinds {
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        // Where our own encoder does not serve, tokens are not what the text says (`##s`, `<0x0A>`): see the text.
        let by_token = matches!(tokenizer.engine(), Engine::Own(_));
        let kind = |id: u32| {
            let text = std::str::from_utf8(tokenizer.token_bytes(id)?).ok()?;
            by_token.then(|| Kind::of_text(text))
        };
        Self((0..tokenizer.vocab_size() as u32).map(kind).collect())
    }

    /// Ids of whole characters, with their script.
    pub(super) fn whole(&self) -> impl Iterator<Item = (u32, Kind)> {
        (0u32..).zip(&self.0).filter_map(|(id, &kind)| Some((id, kind?)))
    }
}

/// Characters of one script.
#[derive(Clone, Default)]
pub(super) struct KindCounts {
    pub(super) bytes: u64,
    pub(super) characters: u64,
    pub(super) words: u64,
    /// One of them, which knows the script's name.
    pub(super) example: Option<char>,
}

pub(super) struct Tally {
    pub(super) documents: u64,
    pub(super) bytes: u64,
    pub(super) words: u64,
    pub(super) lossless: u64,
    /// By id.
    pub(super) counts: Vec<u64>,
    /// By script: characters, and tokens that [`TokenKinds`] does not know.
    pub(super) kinds: Vec<KindCounts>,
    pub(super) partial: Vec<u64>,
}

impl Tally {
    pub(super) fn new(vocab_size: usize) -> Self {
        Self {
            documents: 0,
            bytes: 0,
            words: 0,
            lossless: 0,
            counts: vec![0; vocab_size],
            kinds: vec![KindCounts::default(); Kind::COUNT],
            partial: vec![0; Kind::COUNT],
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.words += other.words;
        self.lossless += other.lossless;
        let sum = |into: &mut [u64], from: &[u64]| into.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        sum(&mut self.counts, &other.counts);
        sum(&mut self.partial, &other.partial);
        for (kind, more) in self.kinds.iter_mut().zip(&other.kinds) {
            kind.bytes += more.bytes;
            kind.characters += more.characters;
            kind.words += more.words;
            kind.example = kind.example.or(more.example);
        }
    }

    pub(super) fn count(
        &mut self,
        tokenizer: &Tokenizer,
        kinds: &TokenKinds,
        document: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        self.documents += 1;
        self.bytes += document.len() as u64;
        self.count_characters(document);
        if let Engine::Reference(reference) = tokenizer.engine() {
            let (ids, ranges) = reference.offsets(document, false)?;
            for (&id, range) in ids.iter().zip(ranges) {
                self.counts[id as usize] += 1;
                self.partial[Kind::of_text(document.get(range).unwrap_or_default()).index()] += 1;
            }
            self.lossless += u64::from(tokenizer.decode(&ids, false) == document);
            return Ok(());
        }
        // Tokens put together are the normalized text, so the place of one that is not whole characters is known.
        let text = if tokenizer.normalizes() { nfc(document) } else { Cow::Borrowed(document) };
        ids.clear();
        tokenizer.encode_document(&text, ids)?;
        let (mut at, mut same) = (0, true);
        for &id in ids.iter() {
            self.counts[id as usize] += 1;
            let token = tokenizer.token_bytes(id).unwrap_or_default();
            if kinds.0[id as usize].is_none() {
                self.partial[kind_at(&text, at).index()] += 1;
            }
            same &= text.as_bytes()[at..].starts_with(token);
            at = (at + token.len()).min(text.len());
        }
        self.lossless += u64::from(same && at == text.len());
        Ok(())
    }

    fn count_characters(&mut self, document: &str) {
        // The script of the word so far; none between words.
        let mut word: Option<Kind> = None;
        for character in document.chars() {
            let kind = Kind::of(character);
            let counts = &mut self.kinds[kind.index()];
            counts.bytes += character.len_utf8() as u64;
            counts.characters += 1;
            counts.example.get_or_insert(character);
            if character.is_whitespace() {
                self.end_word(word.take());
            } else if !word.is_some_and(Kind::is_script) {
                word = Some(if kind.is_script() { kind } else { word.unwrap_or(kind) });
            }
        }
        self.end_word(word);
    }

    fn end_word(&mut self, word: Option<Kind>) {
        if let Some(kind) = word {
            self.words += 1;
            self.kinds[kind.index()].words += 1;
        }
    }
}

/// The script of the character that the byte at `at` is of.
fn kind_at(text: &str, mut at: usize) -> Kind {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text[at..].chars().next().map_or(Kind::SYMBOLS, Kind::of)
}
