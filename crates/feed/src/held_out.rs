use std::collections::HashMap;

use candlewick_tokenizer::Tokenizer;

use crate::{Batch, Documents, FeedError, HeldOutEnd, IGNORED};

/// Documents that are never trained on, as tokens: what evaluation reads.
pub struct HeldOut {
    /// End-of-text, then every document closed by end-of-text: so every token of every document is a target once.
    tokens: Vec<u32>,
    end_of_text: u32,
    text: Vec<u8>,
    /// Of each source.
    ends: Vec<HeldOutEnd>,
}

impl HeldOut {
    /// Takes every document of a feed in file order.
    ///
    /// # Errors
    /// Whatever made the source fail; `TOKENIZER_INVALID` for a tokenizer without end-of-text, or without ids for a
    /// document.
    pub fn collect(documents: &mut Documents, tokenizer: &Tokenizer) -> Result<Self, FeedError> {
        let (end_of_text, _) = tokenizer.eos_token()?;
        let mut held_out =
            Self { tokens: vec![end_of_text], end_of_text, text: Vec::new(), ends: Vec::new() };
        while let Some(document) = documents.next_document()? {
            let text = String::from_utf8_lossy(document.bytes());
            tokenizer.encode_document(&text, &mut held_out.tokens)?;
            held_out.tokens.push(end_of_text);
            held_out.text.extend_from_slice(text.as_bytes());
            let (file, group, row) = document.place();
            held_out.ends = vec![HeldOutEnd { file, group, row, documents: held_out.documents() + 1 }];
        }
        Ok(held_out)
    }

    /// The documents of several sources as one, in their order; all of them by the same tokenizer.
    ///
    /// # Panics
    /// Without parts.
    pub fn join(parts: &[&Self]) -> Self {
        let end_of_text = parts.first().expect("somebody holds out").end_of_text;
        let mut joined = Self { tokens: vec![end_of_text], end_of_text, text: Vec::new(), ends: Vec::new() };
        for part in parts {
            joined.tokens.extend_from_slice(part.targets());
            joined.text.extend_from_slice(&part.text);
            joined.ends.extend_from_slice(&part.ends);
        }
        joined
    }

    /// How many documents there are.
    pub fn documents(&self) -> u64 {
        self.ends.iter().map(|end| end.documents).sum()
    }

    /// Where the held-out part of each source ends; nothing for one that has no document.
    pub fn ends(&self) -> &[HeldOutEnd] {
        &self.ends
    }

    /// The text of all documents, one after the other, UTF-8.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The tokens to predict, in order.
    pub fn targets(&self) -> &[u32] {
        &self.tokens[1..]
    }

    /// Bits a byte of text when every target is coded by its own frequency among the targets: what a model that
    /// knows the frequencies and no context would reach on exactly this text.
    pub fn unigram_bits_per_byte(&self) -> f64 {
        let mut counts = HashMap::new();
        self.targets().iter().for_each(|&token| *counts.entry(token).or_insert(0_u64) += 1);
        // Summed in the order of the ids, so that the last digits do not depend on the hash map.
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_unstable();
        let total = self.targets().len() as f64;
        let bits: f64 = counts.iter().map(|&(_, n)| -(n as f64) * (n as f64 / total).log2()).sum();
        bits / self.text.len() as f64
    }

    /// Batches of `rows × sequence_length` over all targets; the last one is filled up with ignored targets.
    pub fn batches(&self, rows: usize, sequence_length: usize) -> impl Iterator<Item = Batch> + '_ {
        let size = rows * sequence_length;
        self.targets().chunks(size).zip(self.tokens.chunks(size)).map(move |(targets, inputs)| {
            let mut batch = Batch {
                inputs: inputs[..targets.len()].to_vec(),
                targets: targets.to_vec(),
                rows,
                sequence_length,
                counted: targets.len() as u64,
            };
            batch.inputs.resize(size, self.end_of_text);
            batch.targets.resize(size, IGNORED);
            batch
        })
    }
}
