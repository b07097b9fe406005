//! The `tokenizers` crate behind our interface: it serves every `tokenizer.json` outside our registry.

use std::any::Any;
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use crate::alphabet;
use crate::definition::{AddedToken, Definition};
use crate::error::TokenizerError;

/// Two copies of one tokenizer, since whether special tokens are recognised is a property of a copy.
pub(crate) struct Reference {
    recognising: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
    /// Why our registry does not serve the file.
    why: String,
}

impl Reference {
    pub(crate) fn load(
        tokenizer_json: &[u8],
        definition: &Definition,
        why: String,
    ) -> Result<Self, TokenizerError> {
        if definition.model.dropout.is_some_and(|dropout| dropout > 0.0) {
            return Err(TokenizerError::invalid(
                "the tokenizer has BPE dropout, so the same text would give different ids each time",
                "set model.dropout to null in tokenizer.json",
            ));
        }
        // The crate indexes past its buffer when a merge is longer than every token of the vocabulary.
        let mut recognising = guarded(|| tokenizers::Tokenizer::from_bytes(tokenizer_json))
            .map_err(|reason| refused(&reason))?;
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
        Ok(Self { recognising, plain, why })
    }

    /// Appends the ids of `text`; with `special`, special tokens in it are recognised. Errors: `TOKENIZER_INVALID`
    /// when the file has no token for a part of the text, or its expressions do not get through it.
    pub(crate) fn encode(&self, text: &str, special: bool, ids: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let encoding = guarded(|| self.tokenizer(special).encode_fast(text, false));
        ids.extend_from_slice(encoding.map_err(|reason| not_encoded(text, &reason))?.get_ids());
        Ok(())
    }

    /// Ids, and the bytes of `text` that the crate says they come from. Errors: as [`Reference::encode`].
    pub(crate) fn offsets(
        &self,
        text: &str,
        special: bool,
    ) -> Result<(Vec<u32>, Vec<Range<usize>>), TokenizerError> {
        let encoding = guarded(|| self.tokenizer(special).encode(text, false));
        let encoding = encoding.map_err(|reason| not_encoded(text, &reason))?;
        let ranges = encoding.get_offsets().iter().map(|&(start, end)| start..end);
        Ok((encoding.get_ids().to_vec(), ranges.collect()))
    }

    fn tokenizer(&self, special: bool) -> &tokenizers::Tokenizer {
        if special { &self.recognising } else { &self.plain }
    }

    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// The text of `ids`, or `None` where the file's decoder fails on them.
    pub(crate) fn decode(&self, ids: &[u32], skip_special: bool) -> Option<String> {
        guarded(|| self.recognising.decode(ids, skip_special)).ok()
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

/// What `call` gives, or why it failed: the crate panics where its regular expression engine gives up, and on tables
/// that contradict each other.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("it gave up ({})", message.unwrap_or("without a reason"))
}

fn not_encoded(text: &str, reason: &str) -> TokenizerError {
    let beginning: String = text.chars().take(60).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    TokenizerError::invalid(
        format!(
            "the tokenizers library cannot encode a text of {} bytes, {beginning:?}{more}, with this \
             tokenizer.json: {reason}",
            text.len()
        ),
        "take a tokenizer that has a token for every text, such as a byte-level BPE; candlewick tokenizer encode \
         DIR repeats this with a text of yours",
    )
}

fn refused(reason: &str) -> TokenizerError {
    TokenizerError::invalid(
        format!("the tokenizers library does not accept this tokenizer.json: {reason}"),
        "write the tokenizer again with the tool that made it",
    )
}
