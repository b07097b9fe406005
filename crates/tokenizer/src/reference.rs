//! The `tokenizers` crate behind our interface: it serves every `tokenizer.json` outside our registry.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::alphabet;
use crate::definition::{AddedToken, Definition};
use crate::error::TokenizerError;

/// Two copies of one tokenizer, since whether special tokens are recognised is a property of a copy.
pub(crate) struct Reference {
    recognising: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
}

impl Reference {
    pub(crate) fn load(tokenizer_json: &[u8], definition: &Definition) -> Result<Self, TokenizerError> {
        if definition.model.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(TokenizerError::invalid(
                "the tokenizer has BPE dropout, so the same text would give different ids each time",
                "set model.dropout to null in tokenizer.json",
            ));
        }
        // The crate indexes past its buffer when a merge is longer than every token of the vocabulary.
        let mut recognising =
            catch_unwind(AssertUnwindSafe(|| tokenizers::Tokenizer::from_bytes(tokenizer_json)))
                .map_err(|_| refused("its tables contradict each other"))?
                .map_err(|error| refused(&error.to_string()))?;
        recognising.with_truncation(None).map_err(|error| refused(&error.to_string()))?;
        recognising.with_padding(None);
        if let Some(unknown) = &definition.model.unk_token
            && recognising.token_to_id(unknown).is_none()
            && !knows_every_byte(&recognising, definition)
        {
            return Err(refused(&format!("its unk_token {unknown:?} is not in its vocabulary")));
        }
        if definition.model.kind.as_deref() == Some("Unigram") && definition.model.unk_id.is_none() {
            return Err(refused("it has no unknown token, so some texts could not be encoded"));
        }
        let mut plain = recognising.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { recognising, plain })
    }

    /// Appends the ids of `text`; with `special`, special tokens in it are recognised.
    pub(crate) fn encode(&self, text: &str, special: bool, ids: &mut Vec<u32>) {
        let tokenizer = if special { &self.recognising } else { &self.plain };
        match tokenizer.encode_fast(text, false) {
            Ok(encoding) => ids.extend_from_slice(encoding.get_ids()),
            // Only a missing unknown token fails, and loading refused that. Losing text in silence would be worse.
            Err(error) => panic!("the tokenizers crate could not encode a text: {error}"),
        }
    }

    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        self.recognising.decode(ids, skip_special).unwrap_or_default()
    }

    /// Every token with its id, added tokens included.
    pub(crate) fn vocabulary(&self) -> HashMap<String, u32> {
        self.recognising.get_vocab(true)
    }

    pub(crate) fn added_tokens(&self) -> Vec<AddedToken> {
        let added = self.recognising.get_added_tokens_decoder().into_iter();
        added
            .map(|(id, token)| AddedToken {
                id,
                content: token.content,
                single_word: token.single_word,
                lstrip: token.lstrip,
                rstrip: token.rstrip,
                normalized: token.normalized,
                special: token.special,
            })
            .collect()
    }
}

/// Whether text becomes bytes, each of which is a token, so that nothing is ever unknown.
fn knows_every_byte(tokenizer: &tokenizers::Tokenizer, definition: &Definition) -> bool {
    let byte_level = |part: &Value| part["type"] == "ByteLevel";
    let parts = definition.pre_tokenizer["pretokenizers"].as_array();
    (byte_level(&definition.pre_tokenizer) || parts.is_some_and(|parts| parts.iter().any(byte_level)))
        && (0..=255).all(|byte| tokenizer.token_to_id(&alphabet::spell(&[byte])).is_some())
}

fn refused(reason: &str) -> TokenizerError {
    TokenizerError::invalid(
        format!("the tokenizers library does not accept this tokenizer.json: {reason}"),
        "write the tokenizer again with the tool that made it",
    )
}
