//! Which `tokenizer.json` files our own encoder serves: those whose parts are exactly known to it.
//!
//! Anything else, a flag that we have not met among them, is left to the `tokenizers` crate.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::alphabet;
use crate::bpe::Bpe;
use crate::definition::{AddedToken, BpeTables, Definition};
use crate::encoder::Encoder;
use crate::pattern::Pattern;
use crate::special::AddedTokens;
use crate::word::BuildFoldHasher;

/// Our encoder for this file, or `None` where the `tokenizers` crate must serve it.
pub(crate) fn encoder(definition: &Definition, tables: &BpeTables) -> Option<Encoder> {
    let model = &definition.model;
    let absent = |affix: &Option<String>| affix.as_deref().unwrap_or_default().is_empty();
    let plain = model.dropout.is_none()
        && !model.byte_fallback
        && absent(&model.continuing_subword_prefix)
        && absent(&model.end_of_word_suffix);
    if !plain || definition.decoder["type"] != "ByteLevel" {
        return None;
    }
    let nfc = match &definition.normalizer {
        Value::Null => false,
        normalizer if only_type(normalizer, "NFC") => true,
        _ => return None,
    };
    let pattern = pattern_of(&definition.pre_tokenizer, model.ignore_merges, nfc)?;
    added_as_expected(&definition.added_tokens, tables, nfc).then_some(())?;
    let bpe = bpe(tables, model.ignore_merges)?;
    let (normalized, raw): (Vec<&AddedToken>, _) =
        definition.added_tokens.iter().partition(|token| token.normalized);
    let (raw, normalized) = (AddedTokens::new(raw.into_iter()), AddedTokens::new(normalized.into_iter()));
    Some(Encoder::new(pattern, nfc, bpe, raw, normalized))
}

fn only_type(part: &Value, kind: &str) -> bool {
    part["type"] == kind && part.as_object().is_some_and(|fields| fields.len() == 1)
}

/// The pattern of a `pre_tokenizer`. Expressions that two patterns share are told apart by what goes with them.
fn pattern_of(pre_tokenizer: &Value, ignore_merges: bool, nfc: bool) -> Option<Pattern> {
    if byte_level(pre_tokenizer, true) {
        return Some(Pattern::Gpt2);
    }
    let parts = pre_tokenizer["pretokenizers"].as_array().filter(|_| pre_tokenizer["type"] == "Sequence")?;
    let [split, bytes] = parts.as_slice() else { return None };
    // Each expression matches every character, so keeping what matches equals isolating it.
    let isolates = split["behavior"] == "Isolated" && split["invert"] == false;
    let keeps = split["behavior"] == "Removed" && split["invert"] == true;
    if split["type"] != "Split" || !(isolates || keeps) || !byte_level(bytes, false) {
        return None;
    }
    let regex = split["pattern"]["Regex"].as_str()?;
    let of_regex: Vec<Pattern> = Pattern::ALL
        .into_iter()
        .filter(|&pattern| pattern != Pattern::Gpt2 && pattern.regex() == regex)
        .collect();
    match of_regex.as_slice() {
        [_, _] if ignore_merges && !nfc => Some(Pattern::Llama3),
        [first, ..] => Some(*first),
        [] => (regex == Pattern::Gpt2.regex()).then_some(Pattern::Gpt2),
    }
}

fn byte_level(part: &Value, use_regex: bool) -> bool {
    part["type"] == "ByteLevel"
        && part["add_prefix_space"] == false
        && part.get("use_regex").is_none_or(|value| *value == true) == use_regex
        && part.get("use_regex").is_none_or(Value::is_boolean)
}

/// Whether every added token is a plain one and has the id that the `tokenizers` crate would give it.
fn added_as_expected(added: &[AddedToken], tables: &BpeTables, nfc: bool) -> bool {
    let mut contents = HashSet::new();
    let mut next = tables.vocab.len() as u32;
    added.iter().all(|token| {
        let id = tables.vocab.get(&token.content).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let plain = !(token.single_word || token.lstrip || token.rstrip || token.normalized && nfc);
        plain && id == token.id && !token.content.is_empty() && contents.insert(&token.content)
    })
}

/// The merges over ids; `None` when a byte, a part or a merged token is not in the vocabulary, or an id is shared.
fn bpe(tables: &BpeTables, ignore_merges: bool) -> Option<Bpe> {
    let ids: HashSet<u32> = tables.vocab.values().copied().collect();
    if ids.len() != tables.vocab.len() {
        return None;
    }
    let mut byte_ids = [0; 256];
    for byte in 0..=255u8 {
        byte_ids[usize::from(byte)] = *tables.vocab.get(&alphabet::spell(&[byte]))?;
    }
    let mut merged = String::new();
    let mut merges = Vec::new();
    for (left, right) in tables.merges().ok()? {
        merged.clear();
        merged.extend([left, right]);
        merges.push((*tables.vocab.get(left)?, *tables.vocab.get(right)?, *tables.vocab.get(&merged)?));
    }
    let whole = ignore_merges.then(|| {
        let spelled = tables.vocab.iter();
        let words =
            spelled.filter_map(|(token, &id)| Some((alphabet::unspell(token)?.into_boxed_slice(), id)));
        words.collect::<HashMap<Box<[u8]>, u32, BuildFoldHasher>>()
    });
    Some(Bpe::new(byte_ids, &merges, whole))
}
