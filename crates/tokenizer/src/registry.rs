//! Which `tokenizer.json` files our own encoder serves: those whose parts are exactly known to it.
//!
//! Anything else, a flag that we have not met among them, is left to the `tokenizers` crate.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::alphabet;
use crate::bpe::{Bpe, Workspace};
use crate::definition::{AddedToken, BpeTables, Definition, kind_of};
use crate::encoder::Encoder;
use crate::pattern::Pattern;
use crate::scan::for_each_word;
use crate::special::AddedTokens;
use crate::split::Joints;
use crate::word::BuildFoldHasher;

/// Our encoder for this file, or why the `tokenizers` crate must serve it, in words.
pub(crate) fn encoder(definition: &Definition, tables: &BpeTables) -> Result<Encoder, String> {
    let model = &definition.model;
    let absent = |affix: &Option<String>| affix.as_deref().unwrap_or_default().is_empty();
    let because = |wrong: bool, reason: &str| if wrong { Err(reason.to_owned()) } else { Ok(()) };
    because(model.dropout.is_some(), "model.dropout is set")?;
    because(model.byte_fallback, "its model spells bytes by byte_fallback")?;
    because(!absent(&model.continuing_subword_prefix), "model.continuing_subword_prefix is set")?;
    because(!absent(&model.end_of_word_suffix), "model.end_of_word_suffix is set")?;
    because(definition.decoder["type"] != "ByteLevel", "its decoder is not ByteLevel")?;
    let nfc = match &definition.normalizer {
        Value::Null => false,
        normalizer if only_type(normalizer, "NFC") => true,
        normalizer => return Err(format!("its normalizer is {}, not NFC or none", kind_of(normalizer))),
    };
    let pattern = pattern_of(&definition.pre_tokenizer, model.ignore_merges, nfc)
        .ok_or_else(|| unknown_pre_tokenizer(&definition.pre_tokenizer))?;
    added_as_expected(&definition.added_tokens, tables, nfc)?;
    let bpe = bpe(tables, pattern, model.ignore_merges)?;
    let made = made_tokens(tables)?;
    let joints = (!bpe.ignores_merges()).then(|| Joints::new(&made));
    let (normalized, raw): (Vec<&AddedToken>, _) =
        definition.added_tokens.iter().partition(|token| token.normalized);
    let (raw, normalized) = (AddedTokens::new(raw.into_iter()), AddedTokens::new(normalized.into_iter()));
    Ok(Encoder::new(pattern, nfc, bpe, joints, raw, normalized, &made))
}

/// Why a file whose model is not BPE is outside.
pub(crate) fn not_bpe(definition: &Definition) -> String {
    format!("its model is {}, not BPE", definition.model.kind.as_deref().unwrap_or("of no named type"))
}

fn unknown_pre_tokenizer(pre_tokenizer: &Value) -> String {
    if pre_tokenizer.is_null() {
        return "it has no pre_tokenizer".to_owned();
    }
    let parts =
        pre_tokenizer["pretokenizers"].as_array().map_or(std::slice::from_ref(pre_tokenizer), Vec::as_slice);
    if parts.iter().any(|part| part["add_prefix_space"] == true) {
        return "its pre_tokenizer has add_prefix_space".to_owned();
    }
    match parts.iter().find_map(|part| part["pattern"]["Regex"].as_str()) {
        Some(regex) => {
            format!("its pre_tokenizer splits by an expression that is not in the registry: {regex}")
        }
        None => format!("its pre_tokenizer is {}, which is not in the registry", kind_of(pre_tokenizer)),
    }
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

/// Whether every added token is a plain one and has the id that the `tokenizers` crate would give it; if not, why.
fn added_as_expected(added: &[AddedToken], tables: &BpeTables, nfc: bool) -> Result<(), String> {
    let mut contents = HashSet::new();
    let mut next = tables.vocab.len() as u32;
    for token in added {
        let content = &token.content;
        let id = tables.vocab.get(content).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let odd = [
            (token.lstrip, "takes the space on its left (lstrip)"),
            (token.rstrip, "takes the space on its right (rstrip)"),
            (token.single_word, "is only found as a word of its own (single_word)"),
            (token.normalized && nfc, "is looked for in normalized text"),
            (id != token.id, "has another id than the tokenizers library gives it"),
            (content.is_empty(), "is empty"),
            (!contents.insert(content), "is there twice"),
        ];
        if let Some((_, what)) = odd.iter().find(|(is, _)| *is) {
            return Err(format!("its added token {content:?} {what}"));
        }
    }
    Ok(())
}

/// The merges over ids; or why not: a byte, a part or a merged token is not in the vocabulary, or an id is shared.
fn bpe(tables: &BpeTables, pattern: Pattern, ignore_merges: bool) -> Result<Bpe, String> {
    let ids: HashSet<u32> = tables.vocab.values().copied().collect();
    if ids.len() != tables.vocab.len() {
        return Err("two tokens of its vocabulary share an id".to_owned());
    }
    let id_of = |token: &str| {
        let id = tables.vocab.get(token).copied();
        id.ok_or_else(|| format!("its vocabulary lacks {token:?}, a byte or a part of a merge"))
    };
    let mut byte_ids = [0; 256];
    for byte in 0..=255u8 {
        byte_ids[usize::from(byte)] = id_of(&alphabet::spell(&[byte]))?;
    }
    let mut merged = String::new();
    let mut merges = Vec::new();
    for (left, right) in tables.merges().map_err(|error| error.message)? {
        merged.clear();
        merged.extend([left, right]);
        merges.push((id_of(left)?, id_of(right)?, id_of(&merged)?));
    }
    if merges.len() >= Bpe::LIMIT || ids.iter().any(|&id| id as usize >= Bpe::LIMIT) {
        return Err(format!("its vocabulary has {} tokens, {} at most are supported", ids.len(), Bpe::LIMIT));
    }
    let bpe = Bpe::new(byte_ids, &merges, None);
    if !ignore_merges {
        return Ok(bpe);
    }
    let spelled = tables.vocab.iter();
    let words: HashMap<Box<[u8]>, u32, BuildFoldHasher> =
        spelled.filter_map(|(token, &id)| Some((alphabet::unspell(token)?.into_boxed_slice(), id))).collect();
    // Where every word that is a token is made by merges too, there is nothing to ignore.
    let mut work = Workspace::default();
    let mut made = |word: &[u8], id: u32| {
        bpe.encode_word(word, &mut work);
        work.ids == [id]
    };
    if words.iter().all(|(word, &id)| made(word, id) || is_never_a_word(pattern, word)) {
        return Ok(bpe);
    }
    Ok(Bpe::new(byte_ids, &merges, Some(words)))
}

/// Whether no text has `token` for a word: without white space in it nothing that follows matters, so it would be a
/// word by itself.
fn is_never_a_word(pattern: Pattern, token: &[u8]) -> bool {
    let Ok(token) = std::str::from_utf8(token) else { return false };
    let mut words = 0;
    for_each_word(pattern, token, |_| words += 1);
    words > 1 && !token.contains(char::is_whitespace)
}

/// The bytes of the tokens that merging makes, in the order of the merges.
fn made_tokens(tables: &BpeTables) -> Result<Vec<Vec<u8>>, String> {
    let merges = tables.merges().map_err(|error| error.message)?;
    // A part that bytes cannot spell is never reached.
    let made = merges.into_iter().filter_map(|(left, right)| {
        let mut token = alphabet::unspell(left)?;
        token.extend(alphabet::unspell(right)?);
        Some(token)
    });
    Ok(made.collect())
}
