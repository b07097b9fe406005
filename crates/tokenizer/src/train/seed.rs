//! The vocabulary that merges are added to: special tokens and bytes, or all of another tokenizer.

use std::collections::HashSet;

use super::base_tokens;
use crate::alphabet;
use crate::definition::BpeTables;
use crate::error::TokenizerError;
use crate::pattern::Pattern;
use crate::tokenizer::Tokenizer;

/// What there is before anything is learned.
pub(super) struct Seed {
    /// Tokens by id, spelled in the alphabet.
    pub(super) tokens: Vec<String>,
    pub(super) byte_ids: [u32; 256],
    /// Merges by rank, spelled.
    pub(super) merges: Vec<(String, String)>,
    pub(super) special_tokens: Vec<String>,
    /// Of the tokenizer that is gone on from.
    pub(super) digest: Option<String>,
}

impl Seed {
    /// Special tokens, then the bytes.
    pub(super) fn none(special_tokens: &[String]) -> Self {
        let (tokens, byte_ids) = base_tokens(special_tokens);
        Self { tokens, byte_ids, merges: Vec::new(), special_tokens: special_tokens.to_vec(), digest: None }
    }

    /// All of `tokenizer`, then those of `special_tokens` that it lacks.
    pub(super) fn of(
        tokenizer: &Tokenizer,
        pattern: Pattern,
        special_tokens: &[String],
    ) -> Result<Self, TokenizerError> {
        let hint =
            "go on from a tokenizer that train-tokenizer-streaming wrote, or leave --seed-tokenizer out";
        let invalid = |what: &str| {
            TokenizerError::invalid(format!("this tokenizer cannot be gone on from: {what}"), hint)
        };
        match tokenizer.pattern() {
            // Llama 3 and cl100k are one expression.
            Some(own) if own.regex() == pattern.regex() => {}
            Some(own) => {
                return Err(TokenizerError::new(
                    "TOKENIZER_MISMATCH",
                    format!("the tokenizer to go on from splits text by {own}, not by {pattern}"),
                    format!("set --pattern {own}, or leave --seed-tokenizer out"),
                ));
            }
            None => return Err(invalid("it splits text in a way that is not one of our patterns")),
        }
        let tables = BpeTables::parse(&tokenizer.inner().tokenizer_json)?;
        if let Some(token) = tokenizer.added_tokens().iter().find(|token| !token.special) {
            return Err(invalid(&format!("its added token {:?} is not special", token.content)));
        }
        let mut by_id: Vec<(u32, String)> =
            tables.vocab.iter().map(|(token, &id)| (id, token.clone())).collect();
        let added =
            tokenizer.added_tokens().iter().filter(|token| !tables.vocab.contains_key(&token.content));
        by_id.extend(added.map(|token| (token.id, token.content.clone())));
        by_id.sort_unstable();
        if (0..).zip(&by_id).any(|(expected, (id, _))| expected != *id) {
            return Err(invalid("its ids have holes"));
        }
        let mut tokens: Vec<String> = by_id.into_iter().map(|(_, token)| token).collect();
        let mut special: Vec<String> =
            tokenizer.added_tokens().iter().map(|token| token.content.clone()).collect();
        let known: HashSet<&String> = tokens.iter().collect();
        let more: Vec<String> =
            special_tokens.iter().filter(|token| !known.contains(token)).cloned().collect();
        tokens.extend_from_slice(&more);
        special.extend(more);
        let mut byte_ids = [0; 256];
        for byte in 0..=255u8 {
            let id = tables.vocab.get(&alphabet::spell(&[byte]));
            byte_ids[usize::from(byte)] = *id.ok_or_else(|| invalid("some byte is no token of it"))?;
        }
        let merges = tables.merges()?.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
        let digest = Some(tokenizer.digest().to_owned());
        Ok(Self { tokens, byte_ids, merges, special_tokens: special, digest })
    }
}
