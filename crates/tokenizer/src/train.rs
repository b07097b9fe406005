//! Training: count the words of documents, then find the merges.

mod changes;
mod corpus;
mod count;
mod merges;
mod pairs;
mod queue;
mod runs;
mod seed;
mod sorted;
mod table;
mod words_file;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::alphabet;
use crate::definition::{Definition, write_tokenizer_config, write_tokenizer_json};
use crate::error::TokenizerError;
use crate::files::{UNICODE_VERSION, to_json};
use crate::pattern::Pattern;
use crate::tokenizer::Tokenizer;
use count::WordCounter;
use merges::{Settings, learn};
use runs::Runs;
use seed::Seed;

/// Spellings taken as the end of text when `<|endoftext|>` is not among several special tokens.
const END_OF_TEXT_SPELLINGS: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>"];

/// A memory limit below this leaves no room for the counts of even one text.
const LEAST_MEMORY: u64 = 1 << 20;

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
    /// Tokens stay shorter than this, in bytes, as with `max_token_length` of the `tokenizers` crate; pairs of bytes are
    /// always allowed.
    pub max_token_length: Option<usize>,
    /// Bytes that the trainer holds at most: counts past it go to disk; words that cannot be merged within it are an
    /// error. The documents handed in, and the finished tokenizer, are not counted.
    pub memory_limit: u64,
    /// Where counts go that memory has no room for, into a directory that is gone afterwards; default: the system's
    /// directory for temporary files.
    pub spill_dir: Option<PathBuf>,
}

impl Default for TrainOptions {
    /// 32,000 tokens, GPT-2's pattern, `<|endoftext|>`, any frequency and length (the defaults of the `tokenizers`
    /// crate), 2 GB.
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            pattern: Pattern::Gpt2,
            special_tokens: vec!["<|endoftext|>".to_owned()],
            min_frequency: 0,
            max_token_length: None,
            memory_limit: 2_000_000_000,
            spill_dir: None,
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
/// were grouped into calls, nor threads, nor what went to disk, change it.
pub struct BpeTrainer {
    options: TrainOptions,
    counter: WordCounter,
    seed: Seed,
}

impl BpeTrainer {
    /// Errors: `CONFIG_INVALID` when the vocabulary cannot hold the special tokens and 256 bytes, when a special
    /// token is empty or named twice, or when the memory limit is below 1 MiB.
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
        if options.memory_limit < LEAST_MEMORY {
            return invalid(
                format!("a memory limit of {} bytes is too small", options.memory_limit),
                "set --memory-limit to 1MB at least; 2GB is the default",
            );
        }
        let seed = Seed::none(&options.special_tokens);
        let parent = options.spill_dir.clone().unwrap_or_else(std::env::temp_dir);
        let counter = WordCounter::new(options.pattern, options.memory_limit, Runs::temporary(&parent));
        let trainer = Self { options, counter, seed };
        trainer.check_size()?;
        Ok(trainer)
    }

    /// Goes on from a vocabulary: its tokens keep their ids, its merges come first, and what is learned is appended.
    /// Special tokens of the options that it lacks follow its own.
    ///
    /// Errors: `TOKENIZER_MISMATCH` when it splits text by another pattern; `TOKENIZER_INVALID` when it is not a
    /// byte-level BPE with all bytes and without holes; `CONFIG_INVALID` when `vocab_size` is smaller than it is.
    pub fn start_from(&mut self, tokenizer: &Tokenizer) -> Result<(), TokenizerError> {
        self.seed = Seed::of(tokenizer, self.options.pattern, &self.options.special_tokens)?;
        self.check_size()
    }

    fn check_size(&self) -> Result<(), TokenizerError> {
        let (wanted, least) = (self.options.vocab_size, self.seed.tokens.len());
        if wanted >= least && u32::try_from(wanted).is_ok() {
            return Ok(());
        }
        let hint = if self.seed.merges.is_empty() {
            format!("set --vocab-size to at least {least}: 256 bytes and the special tokens")
        } else {
            format!("set --vocab-size to more than {least}, the size of the vocabulary to go on from")
        };
        Err(TokenizerError::new(
            "CONFIG_INVALID",
            format!("a vocabulary of {wanted} tokens is not possible"),
            hint,
        ))
    }

    /// Counts the words of `documents`, in parallel on rayon's threads. Empty ones are not documents.
    ///
    /// Errors: `DISK_FULL`, `NOT_WRITABLE` where counts go to disk.
    pub fn count(&mut self, documents: &[&str]) -> Result<(), TokenizerError> {
        self.counter.count(documents)
    }

    /// Documents counted so far, without empty ones.
    pub fn documents(&self) -> u64 {
        self.counter.documents()
    }

    /// Bytes of UTF-8 text counted so far.
    pub fn bytes(&self) -> u64 {
        self.counter.bytes()
    }

    /// Writes the counts so far into a file: from it, [`load_counts`](Self::load_counts) trains another vocabulary, or
    /// goes on with more documents. The format is described in `train/words_file.rs`; equal counts give equal files.
    ///
    /// Errors: `DISK_FULL`, `NOT_WRITABLE`.
    pub fn save_counts(&mut self, path: &Path) -> Result<(), TokenizerError> {
        self.counter.save(path)
    }

    /// Adds the counts of a file.
    ///
    /// Errors: `CONFIG_INVALID` when it cannot be read, `CHECKPOINT_CORRUPT` when it is damaged, `RESUME_MISMATCH` when
    /// it is of another version, pattern or Unicode. The counts are then as they were.
    pub fn load_counts(&mut self, path: &Path) -> Result<(), TokenizerError> {
        self.counter.load(path)
    }

    /// Keeps the counts in `dir` instead of a temporary directory, and takes over those that an earlier training has
    /// committed there. Called before anything is counted. Returns where that one stood.
    ///
    /// Errors: `CHECKPOINT_CORRUPT`, `RESUME_MISMATCH` (another pattern), `NOT_WRITABLE`.
    pub fn keep_in(&mut self, dir: &Path) -> Result<Option<String>, TokenizerError> {
        let (runs, progress) = Runs::kept(dir)?;
        if let Some(progress) = &progress {
            progress.about.check(self.options.pattern, dir)?;
        }
        self.counter.resume(runs, progress.as_ref().map(|progress| &progress.about));
        Ok(progress.map(|progress| progress.position))
    }

    /// Makes the counts so far what a later training goes on from; `position` is the caller's own. After
    /// [`keep_in`](Self::keep_in). A kill at any moment leaves this commit or the one before.
    ///
    /// Errors: `DISK_FULL`, `NOT_WRITABLE`.
    pub fn commit(&mut self, position: &str) -> Result<(), TokenizerError> {
        self.counter.commit(position)
    }

    /// [`commit`](Self::commit) when everything is counted: the counts stay in memory, so that finishing need not read
    /// them again.
    pub fn commit_last(&mut self, position: &str) -> Result<(), TokenizerError> {
        self.counter.commit_held(position)
    }

    /// Finds the merges. `progress` is called every few merges and once at the end; `false` from it aborts.
    ///
    /// Errors: `ABORTED`; `VOCAB_TOO_LARGE` when the text supports fewer tokens than were asked for;
    /// `OUT_OF_MEMORY_HOST` when the distinct words do not fit in the memory limit.
    pub fn finish(self, progress: &dyn Fn(MergeProgress) -> bool) -> Result<Tokenizer, TokenizerError> {
        let Self { options, counter, seed } = self;
        let (documents, bytes) = (counter.documents(), counter.bytes());
        let corpus = counter.into_corpus(options.memory_limit)?;
        let (word_count, [low, high]) = (corpus.words, corpus.digest);
        let settings = Settings {
            base: (seed.tokens, seed.byte_ids),
            seed: &seed.merges,
            vocab_size: options.vocab_size,
            min_frequency: options.min_frequency,
            max_token_length: options.max_token_length,
            limit: options.memory_limit,
        };
        let learned = learn(corpus, settings, &|tokens| {
            progress(MergeProgress { tokens, vocab_size: options.vocab_size, words: word_count })
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
        let tokenizer_json = write_tokenizer_json(options.pattern, &seed.special_tokens, &vocab, &merges)?;
        let added = Definition::parse(&tokenizer_json)?.added_tokens;
        let config_json = write_tokenizer_config(end_of_text(&seed.special_tokens), &added)?;
        let trained = Tokenizer::from_json(&tokenizer_json, Some(&config_json))?;
        let manifest_json = to_json(&json!({
            "candlewick": env!("CARGO_PKG_VERSION"),
            "digest": trained.digest(),
            "pattern": options.pattern.name(),
            "unicode": UNICODE_VERSION,
            "documents": documents,
            "bytes": bytes,
            "words": word_count,
            "counts_digest": format!("{high:016x}{low:016x}"),
            "unreachable_tokens": trained.unreachable_tokens().map(|ids| ids.len()),
            "settings": {
                "vocab_size": options.vocab_size,
                "min_frequency": options.min_frequency,
                "max_token_length": options.max_token_length,
                "special_tokens": options.special_tokens,
                "seed": seed.digest,
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
