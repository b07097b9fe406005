//! Training: count the words of documents, then find the merges.

mod changes;
mod count;
mod merges;
mod pairs;

use serde_json::json;

use crate::alphabet;
use crate::definition::{Definition, write_tokenizer_config, write_tokenizer_json};
use crate::error::TokenizerError;
use crate::files::{UNICODE_VERSION, to_json};
use crate::pattern::Pattern;
use crate::tokenizer::Tokenizer;
use count::WordCounter;
use merges::{Aborted, learn};

/// Spellings taken as the end of text when `<|endoftext|>` is not among several special tokens.
const END_OF_TEXT_SPELLINGS: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"];

/// What to train.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOptions {
    /// Number of tokens: special tokens, 256 bytes, and merges.
    pub vocab_size: usize,
    /// How text is cut into words.
    pub pattern: Pattern,
    /// Special tokens; they get the first ids, in this order.
    pub special_tokens: Vec<String>,
    /// The least number of occurrences that makes a pair a token; 0 and 1 mean any.
    pub min_frequency: u64,
}

impl Default for TrainOptions {
    /// 32,000 tokens, GPT-2's pattern, `<|endoftext|>`, any frequency (the default of the `tokenizers` crate).
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            pattern: Pattern::Gpt2,
            special_tokens: vec!["<|endoftext|>".to_owned()],
            min_frequency: 0,
        }
    }
}

/// How far the merges are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MergeProgress {
    /// Tokens in the vocabulary so far.
    pub tokens: usize,
    /// Tokens wanted.
    pub vocab_size: usize,
    /// Distinct words that the merges are found in.
    pub words: usize,
}

/// Trains a byte-level BPE. The result depends on the documents as a multiset: neither their order, nor how they
/// were grouped into calls, nor threads change it.
pub struct BpeTrainer {
    options: TrainOptions,
    counter: WordCounter,
    documents: u64,
    bytes: u64,
}

impl BpeTrainer {
    /// Errors: `CONFIG_INVALID` when the vocabulary cannot hold the special tokens and 256 bytes, or when a special
    /// token is empty or named twice.
    pub fn new(options: TrainOptions) -> Result<Self, TokenizerError> {
        let invalid = |message: String, hint: &str| Err(TokenizerError::new("CONFIG_INVALID", message, hint));
        for (at, token) in options.special_tokens.iter().enumerate() {
            if token.is_empty() {
                return invalid("a special token is empty".to_owned(), "leave it out");
            }
            if options.special_tokens[..at].contains(token) {
                return invalid(format!("the special token {token:?} is named twice"), "name it once");
            }
        }
        let least = 256 + options.special_tokens.len();
        if options.vocab_size < least || u32::try_from(options.vocab_size).is_err() {
            return invalid(
                format!("a vocabulary of {} tokens is not possible", options.vocab_size),
                &format!("set --vocab-size to at least {least}: 256 bytes and the special tokens"),
            );
        }
        let counter = WordCounter::new(options.pattern);
        Ok(Self { options, counter, documents: 0, bytes: 0 })
    }

    /// Counts the words of `documents`, in parallel on rayon's threads. Empty ones are not documents.
    pub fn count(&mut self, documents: &[&str]) {
        self.documents += documents.iter().filter(|text| !text.is_empty()).count() as u64;
        self.bytes += documents.iter().map(|text| text.len() as u64).sum::<u64>();
        self.counter.count(documents);
    }

    /// Documents counted so far, without empty ones.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Bytes of UTF-8 text counted so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Finds the merges. `progress` is called every few merges and once at the end; `false` from it aborts.
    ///
    /// Errors: `ABORTED`; `VOCAB_TOO_LARGE` when the text supports fewer tokens than were asked for.
    pub fn finish(self, progress: &dyn Fn(MergeProgress) -> bool) -> Result<Tokenizer, TokenizerError> {
        let Self { options, counter, documents, bytes } = self;
        let words = counter.into_words();
        let word_count = words.words.len();
        let learned =
            learn(words, &options.special_tokens, options.vocab_size, options.min_frequency, &|tokens| {
                progress(MergeProgress { tokens, vocab_size: options.vocab_size, words: word_count })
            });
        let learned = learned.map_err(|Aborted| {
            TokenizerError::new("ABORTED", "training the tokenizer was stopped", "run the command again")
        })?;
        if learned.tokens.len() < options.vocab_size {
            let got = learned.tokens.len();
            return Err(TokenizerError::new(
                "VOCAB_TOO_LARGE",
                format!(
                    "the text gives {got} tokens, not {}: {documents} documents, {bytes} bytes, {word_count} \
                     distinct words",
                    options.vocab_size
                ),
                format!("set --vocab-size to {got} or less, or train on more text"),
            ));
        }

        let vocab: Vec<(&str, u32)> =
            learned.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id as u32)).collect();
        let merges: Vec<(&str, &str)> = learned
            .merges
            .iter()
            .map(|&(a, b)| (learned.tokens[a as usize].as_str(), learned.tokens[b as usize].as_str()))
            .collect();
        let tokenizer_json = write_tokenizer_json(options.pattern, &options.special_tokens, &vocab, &merges)?;
        let added = Definition::parse(&tokenizer_json)?.added_tokens;
        let config_json = write_tokenizer_config(end_of_text(&options.special_tokens), &added)?;
        let trained = Tokenizer::from_json(&tokenizer_json, Some(&config_json))?;
        let manifest_json = to_json(&json!({
            "candlewick": env!("CARGO_PKG_VERSION"),
            "digest": trained.digest(),
            "pattern": options.pattern.name(),
            "unicode": UNICODE_VERSION,
            "documents": documents,
            "bytes": bytes,
            "words": word_count,
            "unreachable_tokens": trained.unreachable_tokens().map(|ids| ids.len()),
            "settings": {
                "vocab_size": options.vocab_size,
                "min_frequency": options.min_frequency,
                "special_tokens": options.special_tokens,
            },
        }))?;
        Ok(trained.with_manifest(manifest_json))
    }
}

/// The special token that closes a document: a known spelling, or the only one there is.
fn end_of_text(special_tokens: &[String]) -> Option<&str> {
    let known =
        END_OF_TEXT_SPELLINGS.into_iter().find(|&known| special_tokens.iter().any(|token| token == known));
    known.or(match special_tokens {
        [only] => Some(only),
        _ => None,
    })
}

/// The ids before any merge: special tokens, then the alphabet; and the id of each byte.
fn base_tokens(special_tokens: &[String]) -> (Vec<String>, [u32; 256]) {
    let mut tokens = special_tokens.to_vec();
    let mut byte_ids = [0; 256];
    for byte in alphabet::bytes_by_mapped_char() {
        let spelling = alphabet::spell(&[byte]);
        let id = tokens.iter().position(|token| *token == spelling).unwrap_or_else(|| {
            tokens.push(spelling);
            tokens.len() - 1
        });
        byte_ids[byte as usize] = id as u32;
    }
    (tokens, byte_ids)
}
