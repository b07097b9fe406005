//! How compression changes with the size of the vocabulary, and beside other tokenizers.

use std::collections::HashSet;

use rayon::prelude::*;
use serde::Serialize;

use super::QualitySample;
use crate::definition::{BpeTables, write_tokenizer_json};
use crate::error::TokenizerError;
use crate::tokenizer::Tokenizer;

/// The smallest vocabulary that compression is shown for.
const SMALLEST: usize = 1024;

/// What a tokenizer makes of the part of the sample that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Compression {
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Tokens.
    pub tokens: u64,
    /// `bytes / tokens`.
    pub bytes_per_token: f64,
}

/// [`Compression`] of another tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// Size of its vocabulary.
    pub vocab_size: usize,
    /// What it makes of the text.
    #[serde(flatten)]
    pub compression: Compression,
    /// Both with vocabularies of one size; null where the larger cannot be cut.
    pub same_size: Option<SameSize>,
}

/// Two tokenizers with vocabularies of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SameSize {
    /// The size.
    pub vocab_size: usize,
    /// UTF-8 bytes a token of the tokenizer that is measured.
    pub bytes_per_token: f64,
    /// Of the other.
    pub peer_bytes_per_token: f64,
}

/// [`Compression`] with the first so many tokens of a vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtSize {
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// What comes of it.
    #[serde(flatten)]
    pub compression: Compression,
}

impl QualitySample {
    /// What `tokenizer` makes of the kept part of the sample. Errors: as [`Tokenizer::encode`].
    pub fn compression(&self, tokenizer: &Tokenizer) -> Result<Compression, TokenizerError> {
        let count = |document: &String| {
            let mut ids = Vec::new();
            tokenizer.encode_document(document, &mut ids).map(|()| ids.len() as u64)
        };
        let counts: Result<Vec<u64>, TokenizerError> = self.kept.par_iter().map(count).collect();
        let (bytes, tokens) = (self.kept_bytes as u64, counts?.iter().sum::<u64>());
        Ok(Compression { bytes, tokens, bytes_per_token: bytes as f64 / (tokens as f64).max(1.0) })
    }

    /// What another tokenizer makes of the kept part of the sample, as it is and with equal vocabularies: the larger
    /// one is cut to the size of the smaller ([`Tokenizer::cut_to`]). Errors: as [`Tokenizer::encode`].
    pub fn compare(&self, peer: &Tokenizer) -> Result<Comparison, TokenizerError> {
        let ours = &self.tokenizer;
        let vocab_size = ours.vocab_size().min(peer.vocab_size());
        let cut =
            if peer.vocab_size() > vocab_size { peer.cut_to(vocab_size)? } else { ours.cut_to(vocab_size)? };
        let same_size = cut.map(|cut| -> Result<SameSize, TokenizerError> {
            let (ours, theirs) = if peer.vocab_size() > vocab_size { (ours, &cut) } else { (&cut, peer) };
            Ok(SameSize {
                vocab_size,
                bytes_per_token: self.compression(ours)?.bytes_per_token,
                peer_bytes_per_token: self.compression(theirs)?.bytes_per_token,
            })
        });
        Ok(Comparison {
            vocab_size: peer.vocab_size(),
            compression: self.compression(peer)?,
            same_size: same_size.transpose()?,
        })
    }

    /// Compression with 1,024 tokens, twice as many, and so on, and with the whole vocabulary. Only the last where the
    /// vocabulary cannot be cut ([`Tokenizer::cut_to`]).
    pub fn by_vocab_size(&self) -> Result<Vec<AtSize>, TokenizerError> {
        let whole = self.tokenizer.vocab_size();
        let mut sizes = Vec::new();
        let mut vocab_size = SMALLEST;
        while vocab_size < whole {
            if let Some(cut) = self.tokenizer.cut_to(vocab_size)? {
                sizes.push(AtSize { vocab_size, compression: self.compression(&cut)? });
            }
            vocab_size *= 2;
        }
        sizes.push(AtSize { vocab_size: whole, compression: self.compression(&self.tokenizer)? });
        Ok(sizes)
    }
}

impl Tokenizer {
    /// The tokenizer that has only the first merges of this one, `vocab_size` tokens in all: what training to that
    /// size gives on the same text. Ids stay, added tokens are text. `None` where our own encoder does not serve the
    /// file, or where the size does not leave room for what no merge makes.
    pub fn cut_to(&self, vocab_size: usize) -> Result<Option<Tokenizer>, TokenizerError> {
        let Some(pattern) = self.pattern() else { return Ok(None) };
        let tables = BpeTables::parse(&self.inner().tokenizer_json)?;
        let merges = tables.merges()?;
        let merged: Vec<String> = merges.iter().map(|(left, right)| format!("{left}{right}")).collect();
        let distinct: HashSet<&str> = merged.iter().map(String::as_str).collect();
        let Some(room) = vocab_size.checked_sub(tables.vocab.len() - distinct.len()) else { return Ok(None) };
        let mut made = HashSet::new();
        let kept = merged.iter().take_while(|token| {
            made.insert(token.as_str());
            made.len() <= room
        });
        let kept = kept.count();
        let json = write_tokenizer_json(pattern, &[], &tables.by_id(), &merges[..kept])?;
        Tokenizer::from_json(&json, None).map(Some)
    }
}
