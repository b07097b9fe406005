//! What a tokenizer is, whatever the text.

use serde::Serialize;

use super::IdList;
use crate::definition::{AddedToken, BpeTables, Definition, kind_of};
use crate::error::TokenizerError;
use crate::files::UNICODE_VERSION;
use crate::tiktoken;
use crate::tokenizer::Tokenizer;

/// What a tokenizer is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizerFacts {
    /// `candlewick`, or `tokenizers` where that crate serves the file.
    pub encoder: &'static str,
    /// The pattern of our registry.
    pub pattern: Option<&'static str>,
    /// Why the file is outside our registry, in words.
    pub outside_registry: Option<String>,
    /// The version of Unicode that the pattern's classes are of; null where the `tokenizers` crate serves the file.
    pub unicode: Option<&'static str>,
    /// The normalizer's type as the file names it; null for none.
    pub normalizer: Option<String>,
    /// Largest id plus one.
    pub vocab_size: usize,
    /// Merges of a BPE model.
    pub merges: Option<usize>,
    /// Added tokens that are special.
    pub special_tokens: Vec<NamedToken>,
    /// Added tokens that are not.
    pub added_tokens: Vec<NamedToken>,
    /// The token that closes a document.
    pub end_of_text: Option<NamedToken>,
    /// Tokens whose own bytes do not merge into them, so that no text gives them; `of` all that are not added. Null
    /// where the `tokenizers` crate serves the file.
    pub unreachable: Option<IdList>,
    /// Why no rank file for tiktoken gives the same ids; null where `save` writes one that does.
    pub no_rank_file: Option<String>,
    /// SHA-256 over what determines ids.
    pub digest: String,
}

/// An id and its spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NamedToken {
    /// Its id.
    pub id: u32,
    /// Its spelling.
    pub text: String,
}

impl Tokenizer {
    /// What this tokenizer is: who serves it, its vocabulary, and whether every token is made by its own bytes.
    pub fn facts(&self) -> Result<TokenizerFacts, TokenizerError> {
        let inner = self.inner();
        let definition = Definition::parse(&inner.tokenizer_json)?;
        let merges = if definition.model.is_bpe() {
            Some(BpeTables::parse(&inner.tokenizer_json)?.merges()?.len())
        } else {
            None
        };
        let pattern = self.pattern();
        let ordinary = (0..self.vocab_size() as u32)
            .filter(|&id| self.token_bytes(id).is_some() && !self.is_added(id))
            .count();
        let named = |is: &dyn Fn(&AddedToken) -> bool| {
            let tokens = self.added_tokens().iter().filter(|token| is(token));
            tokens.map(|token| NamedToken { id: token.id, text: token.content.clone() }).collect()
        };
        Ok(TokenizerFacts {
            encoder: if pattern.is_some() { "candlewick" } else { "tokenizers" },
            pattern: pattern.map(|pattern| pattern.name()),
            outside_registry: self.outside_registry().map(str::to_owned),
            unicode: pattern.map(|_| UNICODE_VERSION),
            normalizer: (!definition.normalizer.is_null()).then(|| kind_of(&definition.normalizer)),
            vocab_size: self.vocab_size(),
            merges,
            special_tokens: named(&|token| token.special),
            added_tokens: named(&|token| !token.special),
            end_of_text: self.eos_token().ok().map(|(id, text)| NamedToken { id, text: text.to_owned() }),
            unreachable: self.unreachable_tokens().map(|ids| IdList::of(&ids, ordinary)),
            no_rank_file: tiktoken::rank_file(self).err(),
            digest: self.digest().to_owned(),
        })
    }
}
