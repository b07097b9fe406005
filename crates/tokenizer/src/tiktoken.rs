//! Rank files, as tiktoken reads and OpenAI publishes them: a token a line, its bytes in base64, a space, its rank.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::alphabet;
use crate::definition::{BpeTables, write_tokenizer_json};
use crate::error::TokenizerError;
use crate::pattern::Pattern;
use crate::tokenizer::Tokenizer;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The rank file of `tokenizer`, ranks being ids and added tokens left out; or why tiktoken would give other ids.
///
/// tiktoken merges the two neighbours that together are the token of lowest rank, whatever they are. That is the same
/// as merging by a list if ids grow along the list and every token is what its own bytes merge into: then a token is
/// made in one way only, since what happens inside its span does not depend on what surrounds it.
pub(crate) fn rank_file(tokenizer: &Tokenizer) -> Result<Vec<u8>, String> {
    let Some(unreachable) = tokenizer.unreachable_tokens() else {
        return Err("the tokenizers library serves it".to_owned());
    };
    if !unreachable.is_empty() {
        return Err(format!("{} of its tokens are not what their own bytes merge into", unreachable.len()));
    }
    let readable = |error: TokenizerError| error.message;
    let inner = tokenizer.inner();
    if inner.ignores_merges {
        return Err("model.ignore_merges is set".to_owned());
    }
    let tables = BpeTables::parse(&inner.tokenizer_json).map_err(readable)?;
    let mut made = HashSet::new();
    let mut last = None;
    for (left, right) in tables.merges().map_err(readable)? {
        let merged = format!("{left}{right}");
        let ids =
            [left, right, merged.as_str()].map(|token| tables.vocab.get(token).copied().unwrap_or_default());
        if let Some(added) = ids.into_iter().find(|&id| tokenizer.is_added(id)) {
            return Err(format!("the added token with the id {added} takes part in merges"));
        }
        let id = ids[2];
        if made.insert(id) {
            if last.is_some_and(|last| id < last) {
                return Err("its ids are not in the order of its merges".to_owned());
            }
            last = Some(id);
        }
    }
    let mut file = Vec::new();
    for id in (0..tokenizer.vocab_size() as u32).filter(|&id| !tokenizer.is_added(id)) {
        if let Some(bytes) = tokenizer.token_bytes(id) {
            encode_base64(bytes, &mut file);
            file.extend_from_slice(format!(" {id}\n").as_bytes());
        }
    }
    Ok(file)
}

impl Tokenizer {
    /// Loads a rank file of tiktoken: [`Tokenizer::from_rank_file`] of its bytes.
    pub fn from_rank_file_at(path: &Path, pattern: Pattern) -> Result<Self, TokenizerError> {
        let file = std::fs::read(path)
            .map_err(|error| invalid(format!("cannot read {}: {error}", path.display())))?;
        Self::from_rank_file(&file, pattern)
    }

    /// A tokenizer from a rank file of tiktoken, with the pattern that belongs to it; ids are ranks, and there are no
    /// special tokens. Errors: `TOKENIZER_INVALID`.
    pub fn from_rank_file(file: &[u8], pattern: Pattern) -> Result<Self, TokenizerError> {
        let mut ranks: HashMap<Vec<u8>, u32> = HashMap::new();
        for (at, line) in file.split(|&byte| byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
            let parsed = line.iter().position(|&byte| byte == b' ').and_then(|space| {
                let rank = std::str::from_utf8(&line[space + 1..]).ok()?.trim_end().parse::<u32>().ok()?;
                Some((decode_base64(&line[..space])?, rank))
            });
            let (token, rank) = parsed.ok_or_else(|| {
                invalid(format!("line {} of the rank file is not base64, a space and a number", at + 1))
            })?;
            ranks.insert(token, rank);
        }
        if let Some(byte) = (0..=255u8).find(|&byte| !ranks.contains_key(&[byte][..])) {
            return Err(invalid(format!("the rank file has no token for the byte {byte}")));
        }
        let mut tokens: Vec<(&[u8], u32)> =
            ranks.iter().map(|(token, &rank)| (token.as_slice(), rank)).collect();
        tokens.sort_unstable_by_key(|&(_, rank)| rank);
        let spelled: Vec<(String, u32)> =
            tokens.iter().map(|&(token, rank)| (alphabet::spell(token), rank)).collect();
        let parts: Vec<(String, String)> = tokens
            .iter()
            .filter_map(|&(token, rank)| parts_of(token, rank, &ranks))
            .map(|(left, right)| (alphabet::spell(left), alphabet::spell(right)))
            .collect();
        let vocab: Vec<(&str, u32)> = spelled.iter().map(|(token, rank)| (token.as_str(), *rank)).collect();
        let merges: Vec<(&str, &str)> =
            parts.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
        Self::from_json(&write_tokenizer_json(pattern, &[], &vocab, &merges)?, None)
    }
}

/// The two tokens that `token` is merged from: what its bytes become by merges of lower rank.
fn parts_of<'a>(token: &'a [u8], rank: u32, ranks: &HashMap<Vec<u8>, u32>) -> Option<(&'a [u8], &'a [u8])> {
    let mut borders: Vec<usize> = (0..=token.len()).collect();
    while borders.len() > 3 {
        let pairs = borders.windows(3).enumerate();
        let lowest =
            pairs.filter_map(|(at, three)| Some((*ranks.get(&token[three[0]..three[2]])?, at))).min();
        let (_, at) = lowest.filter(|&(of, _)| of < rank)?;
        borders.remove(at + 1);
    }
    (borders.len() == 3).then(|| token.split_at(borders[1]))
}

fn invalid(message: String) -> TokenizerError {
    TokenizerError::invalid(message, "give a file that tiktoken reads, such as cl100k_base.tiktoken")
}

fn encode_base64(bytes: &[u8], text: &mut Vec<u8>) {
    for group in bytes.chunks(3) {
        let three = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= group.len() { digit } else { b'=' });
        }
    }
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    if text.is_empty() || !text.len().is_multiple_of(4) {
        return None;
    }
    for group in text.chunks(4) {
        let padding = group.iter().rev().take_while(|&&digit| digit == b'=').count();
        if padding > 2 {
            return None;
        }
        let mut bits = 0u32;
        for &digit in &group[..4 - padding] {
            bits = bits << 6 | DIGITS.iter().position(|&known| known == digit)? as u32;
        }
        let three = (bits << (6 * padding)).to_be_bytes();
        bytes.extend_from_slice(&three[1..4 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one_both_ways() {
        for (bytes, text) in [("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("\u{ff}\u{fe}", "w7/Dvg==")] {
            let mut encoded = Vec::new();
            encode_base64(bytes.as_bytes(), &mut encoded);
            assert_eq!(encoded, text.as_bytes());
            assert_eq!(decode_base64(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
        for wrong in ["", "Zg", "Z===", "Zg!=", "===="] {
            assert_eq!(decode_base64(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
