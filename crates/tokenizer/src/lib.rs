//! Byte-level BPE in the format of the `tokenizers` crate: training, encoding, decoding, files.
//!
//! - [`Tokenizer`] loads a `tokenizer.json` and turns text into ids: `registry` decides whether our own `encoder`
//!   (`special`, `nfc`, `scan`, `group`, `cache`, `bpe`, in the order text passes them; `memory` is what is kept) serves the file, or the `tokenizers`
//!   crate (`reference`)
//! - `offsets` says which bytes of the text each id stands for
//! - [`StreamDecoder`] turns ids into text as they come (`decode`)
//! - [`BpeTrainer`] counts the words of documents and finds the merges (`train`)
//! - [`QualitySample`] measures a tokenizer on text (`quality`)
//! - `definition`, `files` and `tiktoken` are the formats on disk, `pattern` the splitting patterns

mod alphabet;
mod batch;
mod bpe;
mod cache;
mod decode;
mod definition;
mod encoder;
mod error;
mod files;
mod group;
mod memory;
mod nfc;
mod offsets;
mod pages;
mod pattern;
mod prefetch;
mod quality;
mod reference;
mod registry;
mod scan;
mod special;
mod split;
mod tiktoken;
mod tokenizer;
mod train;
mod word;

pub use batch::{Encoded, EncodedBatch, Text, recycle};
pub use decode::StreamDecoder;
pub use error::TokenizerError;
pub use pattern::Pattern;
pub use quality::{
    AtSize, Comparison, Compression, IdList, NamedToken, QualityReport, QualitySample, SameSize,
    ScriptQuality, TokenUse, TokenizerFacts,
};
pub use tokenizer::{DOCUMENTS_BUDGET, Tokenizer};
pub use train::{BpeTrainer, MergeProgress, TrainOptions};

#[cfg(test)]
#[path = "../tests/peer/text.rs"]
mod sample_text;
