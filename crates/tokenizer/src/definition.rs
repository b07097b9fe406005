//! What a `tokenizer.json` and a `tokenizer_config.json` say, read and written.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::TokenizerError;
use crate::pattern::Pattern;

/// A token that is found in raw text before splitting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AddedToken {
    pub(crate) id: u32,
    pub(crate) content: String,
    pub(crate) single_word: bool,
    pub(crate) lstrip: bool,
    pub(crate) rstrip: bool,
    pub(crate) normalized: bool,
    pub(crate) special: bool,
}

/// Everything in a `tokenizer.json` but the vocabulary.
#[derive(Debug, Deserialize)]
pub(crate) struct Definition {
    #[serde(default)]
    pub(crate) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(crate) normalizer: Value,
    #[serde(default)]
    pub(crate) pre_tokenizer: Value,
    #[serde(default)]
    pub(crate) decoder: Value,
    pub(crate) model: ModelFlags,
}

impl ModelFlags {
    /// Whether this is a BPE model. GPT-2's own file names no type, and the `tokenizers` crate tries BPE first.
    pub(crate) fn is_bpe(&self) -> bool {
        self.kind.as_deref().map_or(self.merges.is_some(), |kind| kind == "BPE")
    }
}

/// The model's flags. Its vocabulary is read apart, since its shape depends on the type.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelFlags {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) dropout: Option<f64>,
    pub(crate) unk_token: Option<String>,
    /// Unigram's unknown token.
    #[serde(default)]
    pub(crate) unk_id: Option<u32>,
    pub(crate) continuing_subword_prefix: Option<String>,
    pub(crate) end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(crate) byte_fallback: bool,
    #[serde(default)]
    pub(crate) ignore_merges: bool,
    /// Whether there are merges; what they are is read apart.
    merges: Option<IgnoredAny>,
}

impl Definition {
    pub(crate) fn parse(tokenizer_json: &[u8]) -> Result<Self, TokenizerError> {
        serde_json::from_slice(tokenizer_json).map_err(|error| not_a_tokenizer(&error))
    }
}

/// Vocabulary and merges of a BPE model, spelled in the alphabet.
#[derive(Debug, Deserialize)]
pub(crate) struct BpeTables {
    pub(crate) vocab: HashMap<String, u32>,
    merges: Merges,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Merges {
    Pairs(Vec<(String, String)>),
    Lines(Vec<String>),
}

impl BpeTables {
    pub(crate) fn parse(tokenizer_json: &[u8]) -> Result<Self, TokenizerError> {
        #[derive(Deserialize)]
        struct File {
            model: BpeTables,
        }
        let file: File = serde_json::from_slice(tokenizer_json).map_err(|error| not_a_tokenizer(&error))?;
        Ok(file.model)
    }

    /// The merges in order of rank; a line that is not two tokens is an error, as in the `tokenizers` crate.
    pub(crate) fn merges(&self) -> Result<Vec<(&str, &str)>, TokenizerError> {
        match &self.merges {
            Merges::Pairs(pairs) => Ok(pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect()),
            Merges::Lines(lines) => lines
                .iter()
                .filter(|line| !line.starts_with("#version"))
                .map(|line| match line.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok((a, b)),
                    _ => Err(TokenizerError::invalid(
                        format!("the merge {line:?} is not two tokens with a space between"),
                        "write the tokenizer again with the tool that made it",
                    )),
                })
                .collect(),
        }
    }

    /// The spellings in order of id.
    pub(crate) fn by_id(&self) -> Vec<(&str, u32)> {
        let mut tokens: Vec<(&str, u32)> =
            self.vocab.iter().map(|(token, &id)| (token.as_str(), id)).collect();
        tokens.sort_unstable_by_key(|&(token, id)| (id, token));
        tokens
    }
}

fn not_a_tokenizer(error: &serde_json::Error) -> TokenizerError {
    TokenizerError::invalid(
        format!("this is not a tokenizer.json of Hugging Face's format: {error}"),
        "give the tokenizer.json that train-tokenizer-streaming or the tokenizers library wrote",
    )
}

/// What a part of the file, with the parts in it, calls itself.
pub(crate) fn kind_of(part: &Value) -> String {
    let kind = part["type"].as_str().unwrap_or("of no type");
    let parts = ["normalizers", "pretokenizers"].iter().find_map(|key| part[*key].as_array());
    match parts {
        Some(parts) => format!("{kind} of {}", parts.iter().map(kind_of).collect::<Vec<_>>().join(", ")),
        None => kind.to_owned(),
    }
}

/// `eos_token` of a `tokenizer_config.json`: a string, or an object with `content`.
pub(crate) fn eos_of_config(config: &[u8]) -> Result<Option<String>, TokenizerError> {
    let config: Value = serde_json::from_slice(config).map_err(|error| {
        TokenizerError::invalid(
            format!("tokenizer_config.json is not JSON: {error}"),
            "mend the file or remove it; without it the end of text is <|endoftext|>",
        )
    })?;
    let token = match &config["eos_token"] {
        Value::Object(token) => token.get("content").and_then(Value::as_str),
        token => token.as_str(),
    };
    Ok(token.map(str::to_owned))
}

/// A vocabulary in order of id; it serialises as the object that `vocab` and `vocab.json` are.
pub(crate) struct OrderedVocab<'a>(pub(crate) &'a [(&'a str, u32)]);

impl Serialize for OrderedVocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (token, id) in self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

/// The bytes of a `tokenizer.json` for a newly trained byte-level BPE.
///
/// `vocab` is in order of id, special tokens first; `merges` in order of rank; both spelled in the alphabet.
pub(crate) fn write_tokenizer_json(
    pattern: Pattern,
    special_tokens: &[String],
    vocab: &[(&str, u32)],
    merges: &[(&str, &str)],
) -> Result<Vec<u8>, TokenizerError> {
    #[derive(Serialize)]
    struct File<'a> {
        version: &'a str,
        truncation: Value,
        padding: Value,
        added_tokens: Vec<AddedToken>,
        normalizer: Value,
        pre_tokenizer: Value,
        post_processor: Value,
        decoder: Value,
        model: Model<'a>,
    }
    #[derive(Serialize)]
    struct Model<'a> {
        r#type: &'a str,
        dropout: Value,
        unk_token: Value,
        continuing_subword_prefix: Value,
        end_of_word_suffix: Value,
        fuse_unk: bool,
        byte_fallback: bool,
        ignore_merges: bool,
        vocab: OrderedVocab<'a>,
        merges: &'a [(&'a str, &'a str)],
    }
    let byte_level =
        || json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true});
    let file = File {
        version: "1.0",
        truncation: Value::Null,
        padding: Value::Null,
        added_tokens: special_tokens
            .iter()
            .filter_map(|content| {
                let id = vocab.iter().find(|(token, _)| token == content)?.1;
                Some(AddedToken {
                    id,
                    content: content.clone(),
                    single_word: false,
                    lstrip: false,
                    rstrip: false,
                    normalized: false,
                    special: true,
                })
            })
            .collect(),
        normalizer: pattern.normalizer(),
        pre_tokenizer: pattern.pre_tokenizer(),
        post_processor: byte_level(),
        decoder: byte_level(),
        model: Model {
            r#type: "BPE",
            dropout: Value::Null,
            unk_token: Value::Null,
            continuing_subword_prefix: Value::Null,
            end_of_word_suffix: Value::Null,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: OrderedVocab(vocab),
            merges,
        },
    };
    serde_json::to_vec_pretty(&file).map_err(|error| not_a_tokenizer(&error))
}

/// The bytes of a `tokenizer_config.json` that transformers' `AutoTokenizer` reads.
pub(crate) fn write_tokenizer_config(
    eos: Option<&str>,
    added_tokens: &[AddedToken],
) -> Result<Vec<u8>, TokenizerError> {
    let decoder: serde_json::Map<String, Value> = added_tokens
        .iter()
        .map(|token| {
            let fields = json!({
                "content": token.content, "lstrip": token.lstrip, "normalized": token.normalized,
                "rstrip": token.rstrip, "single_word": token.single_word, "special": token.special,
            });
            (token.id.to_string(), fields)
        })
        .collect();
    let mut config = json!({
        "add_prefix_space": false,
        "added_tokens_decoder": decoder,
        "clean_up_tokenization_spaces": false,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    if let Some(eos) = eos {
        config["eos_token"] = eos.into();
    }
    serde_json::to_vec_pretty(&config).map_err(|error| not_a_tokenizer(&error))
}
