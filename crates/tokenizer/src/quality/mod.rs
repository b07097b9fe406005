//! How well a tokenizer fits a sample of text: compression, fertility by script, tokens that are never used.

mod compression;
mod escape;
mod facts;
mod script;
mod tally;

use rayon::prelude::*;
use serde::Serialize;

use crate::error::TokenizerError;
use crate::tokenizer::Tokenizer;
pub use compression::{AtSize, Comparison, Compression, SameSize};
use escape::escaped;
pub use facts::{NamedToken, TokenizerFacts};
use script::Kind;
use tally::{Tally, TokenKinds};

/// Documents of the sample that are kept for comparisons, in bytes: the first ones.
const KEPT_BYTES: usize = 8 << 20;
/// Documents are counted in groups of this many bytes, so that threads share the work.
const GROUP_BYTES: usize = 1 << 20;
/// How many of the longest tokens are shown.
const LONGEST: usize = 10;
/// How many ids of a longer list are given.
const LISTED: usize = 20;

/// Measures a tokenizer on documents. Each is encoded as in training: special tokens in it are plain text.
pub struct QualitySample {
    tokenizer: Tokenizer,
    kinds: TokenKinds,
    tally: Tally,
    kept: Vec<String>,
    kept_bytes: usize,
}

impl QualitySample {
    /// Nothing counted yet.
    pub fn new(tokenizer: &Tokenizer) -> Self {
        let kinds = TokenKinds::new(tokenizer);
        let tally = Tally::new(tokenizer.vocab_size());
        Self { tokenizer: tokenizer.clone(), kinds, tally, kept: Vec::new(), kept_bytes: 0 }
    }

    /// Counts documents on all cores; empty ones are not documents. Errors: as [`Tokenizer::encode`].
    pub fn count(&mut self, documents: &[&str]) -> Result<(), TokenizerError> {
        let mut groups: Vec<&[&str]> = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (at, document) in documents.iter().enumerate() {
            bytes += document.len();
            if bytes >= GROUP_BYTES || at + 1 == documents.len() {
                groups.push(&documents[start..=at]);
                (start, bytes) = (at + 1, 0);
            }
            self.keep(document);
        }
        let counted: Result<Vec<Tally>, TokenizerError> = groups
            .par_iter()
            .map(|group| {
                let mut tally = Tally::new(self.tokenizer.vocab_size());
                let mut ids = Vec::new();
                for document in group.iter().filter(|document| !document.is_empty()) {
                    tally.count(&self.tokenizer, &self.kinds, document, &mut ids)?;
                }
                Ok(tally)
            })
            .collect();
        counted?.iter().for_each(|tally| self.tally.add(tally));
        Ok(())
    }

    /// Keeps what there is room for, whole characters.
    fn keep(&mut self, document: &str) {
        let mut end = document.len().min(KEPT_BYTES - self.kept_bytes);
        while !document.is_char_boundary(end) {
            end -= 1;
        }
        if end > 0 {
            self.kept_bytes += end;
            self.kept.push(document[..end].to_owned());
        }
    }

    /// What was found so far.
    pub fn report(&self) -> QualityReport {
        let Self { tokenizer, kinds, tally, .. } = self;
        let tokens: u64 = tally.counts.iter().sum();
        let share = |part: u64, of: u64| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let of_kind = |is: &dyn Fn(&[u8]) -> bool| -> u64 {
            let counts = (0u32..).zip(&tally.counts);
            counts.filter(|&(id, _)| tokenizer.token_bytes(id).is_some_and(is)).map(|(_, &count)| count).sum()
        };
        let single = of_kind(&|bytes| bytes.len() == 1);
        let partial = of_kind(&|bytes| std::str::from_utf8(bytes).is_err());
        let ordinary = |id: &u32| tokenizer.token_bytes(*id).is_some() && !tokenizer.is_added(*id);
        let all: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(ordinary).collect();
        let unreached: Vec<u32> = all.iter().copied().filter(|&id| tally.counts[id as usize] == 0).collect();
        QualityReport {
            documents: tally.documents,
            bytes: tally.bytes,
            characters: tally.kinds.iter().map(|kind| kind.characters).sum(),
            words: tally.words,
            tokens,
            bytes_per_token: share(tally.bytes, tokens),
            tokens_per_word: share(tokens, tally.words),
            single_byte_tokens: single,
            single_byte_share: share(single, tokens),
            partial_character_tokens: partial,
            partial_character_share: share(partial, tokens),
            lossless_documents: tally.lossless,
            scripts: self.scripts(kinds),
            longest: self.longest(&all),
            unreached: IdList::of(&unreached, all.len()),
        }
    }

    fn scripts(&self, kinds: &TokenKinds) -> Vec<ScriptQuality> {
        let mut tokens = self.tally.partial.clone();
        let mut vocabulary = vec![0; Kind::COUNT];
        for (id, kind) in kinds.whole() {
            tokens[kind.index()] += self.tally.counts[id as usize];
        }
        for id in 0..self.tokenizer.vocab_size() as u32 {
            let token = self.tokenizer.token_bytes(id).map(std::str::from_utf8);
            if let Some(Ok(text)) = token {
                vocabulary[Kind::of_text(text).index()] += 1;
            }
        }
        let mut scripts: Vec<ScriptQuality> = (self.tally.kinds.iter().enumerate())
            .filter_map(|(at, counts)| {
                let example = counts.example?;
                let kind = Kind::of(example);
                let tokens = tokens[at];
                Some(ScriptQuality {
                    script: script::name(kind, example),
                    bytes: counts.bytes,
                    byte_share: counts.bytes as f64 / self.tally.bytes as f64,
                    characters: counts.characters,
                    words: script::has_words(kind).then_some(counts.words),
                    tokens,
                    vocabulary: vocabulary[at],
                    tokens_per_character: tokens as f64 / counts.characters as f64,
                    tokens_per_word: (script::has_words(kind) && counts.words > 0)
                        .then(|| tokens as f64 / counts.words as f64),
                })
            })
            .collect();
        scripts.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.script.cmp(&b.script)));
        scripts
    }

    fn longest(&self, ids: &[u32]) -> Vec<TokenUse> {
        let length = |id: u32| self.tokenizer.token_bytes(id).map_or(0, <[u8]>::len);
        let mut ids = ids.to_vec();
        ids.sort_by_key(|&id| (std::cmp::Reverse(length(id)), id));
        ids.truncate(LONGEST);
        let shown = ids.into_iter().map(|id| TokenUse {
            id,
            bytes: length(id),
            text: escaped(self.tokenizer.token_bytes(id).unwrap_or_default()),
            count: self.tally.counts[id as usize],
        });
        shown.collect()
    }
}

/// What a tokenizer does to a sample.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityReport {
    /// Documents, without empty ones.
    pub documents: u64,
    /// UTF-8 bytes of them.
    pub bytes: u64,
    /// Characters (code points).
    pub characters: u64,
    /// Words: what white space sets apart.
    pub words: u64,
    /// Tokens, without end-of-text.
    pub tokens: u64,
    /// `bytes / tokens`.
    pub bytes_per_token: f64,
    /// `tokens / words`; every token counts, those of punctuation and line breaks too.
    pub tokens_per_word: f64,
    /// Tokens of one byte, such as `a` or a line break.
    pub single_byte_tokens: u64,
    /// Their share of the tokens.
    pub single_byte_share: f64,
    /// Tokens that are not whole characters: where the vocabulary lacks a character, it is spelled by these.
    pub partial_character_tokens: u64,
    /// Their share of the tokens.
    pub partial_character_share: f64,
    /// Documents that decode to themselves (to their NFC, where the tokenizer normalizes).
    pub lossless_documents: u64,
    /// By script, most bytes first.
    pub scripts: Vec<ScriptQuality>,
    /// The longest tokens, added ones aside.
    pub longest: Vec<TokenUse>,
    /// Tokens, added ones aside, that the sample never gave; `of` all such tokens.
    pub unreached: IdList,
}

/// What becomes of the text of one script. A token belongs to the script of its first character that has one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScriptQuality {
    /// Unicode's name of the script, or `digits`, or `punctuation, symbols and spaces`.
    pub script: String,
    /// UTF-8 bytes of its characters.
    pub bytes: u64,
    /// Their share of the sample.
    pub byte_share: f64,
    /// Its characters.
    pub characters: u64,
    /// Words whose first character with a script has this one; null for scripts that set no spaces between words.
    pub words: Option<u64>,
    /// Its tokens.
    pub tokens: u64,
    /// Tokens of the vocabulary that belong to it.
    pub vocabulary: u64,
    /// `tokens / characters`.
    pub tokens_per_character: f64,
    /// `tokens / words`.
    pub tokens_per_word: Option<f64>,
}

/// A token, and how often it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenUse {
    /// Its id.
    pub id: u32,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its text; what does not print is escaped, as are bytes that are not UTF-8 (`\xNN`).
    pub text: String,
    /// How often the sample gave it.
    pub count: u64,
}

/// Ids: how many, their share, and the first of them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdList {
    /// How many there are.
    pub count: usize,
    /// Of how many.
    pub of: usize,
    /// `count / of`.
    pub share: f64,
    /// The first 20.
    pub first: Vec<u32>,
}

impl IdList {
    fn of(ids: &[u32], of: usize) -> Self {
        let share = if of == 0 { 0.0 } else { ids.len() as f64 / of as f64 };
        Self { count: ids.len(), of, share, first: ids.iter().copied().take(LISTED).collect() }
    }
}
