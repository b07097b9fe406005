//! The registry of splitting patterns: which regular expression cuts text into words before merging.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::error::TokenizerError;

/// How text is cut into words; no merge crosses a word's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// GPT-2: case-sensitive contractions, only a space joins the next word, runs of digits stay whole.
    Gpt2,
    /// GPT-4: contractions in any case, any one character joins letters, digits in groups of three.
    Cl100k,
    /// GPT-4o: like `Cl100k`, and words break where the case rises; contractions stay with their word.
    O200k,
    /// Llama 3: the expression of `Cl100k`.
    Llama3,
    /// Qwen 2: like `Cl100k` with single digits; text is brought to NFC first.
    Qwen2,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Pattern {
    /// Every pattern of the registry.
    pub const ALL: [Pattern; 5] =
        [Pattern::Gpt2, Pattern::Cl100k, Pattern::O200k, Pattern::Llama3, Pattern::Qwen2];

    /// The name used by commands, configurations and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Gpt2 => "gpt2",
            Pattern::Cl100k => "cl100k",
            Pattern::O200k => "o200k",
            Pattern::Llama3 => "llama3",
            Pattern::Qwen2 => "qwen2",
        }
    }

    /// The regular expression, in Oniguruma's syntax as `tokenizer.json` carries it.
    pub fn regex(self) -> &'static str {
        match self {
            Pattern::Gpt2 => GPT2,
            Pattern::Cl100k | Pattern::Llama3 => CL100K,
            Pattern::O200k => O200K,
            Pattern::Qwen2 => QWEN2,
        }
    }

    /// The `pre_tokenizer` of a `tokenizer.json` with this pattern.
    pub(crate) fn pre_tokenizer(self) -> Value {
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": use_regex});
        if self == Pattern::Gpt2 {
            return byte_level(true);
        }
        let split = json!({
            "type": "Split", "pattern": {"Regex": self.regex()}, "behavior": "Isolated", "invert": false
        });
        json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
    }

    /// The `normalizer` of a `tokenizer.json` with this pattern: NFC for Qwen 2, none for the others.
    pub(crate) fn normalizer(self) -> Value {
        if self == Pattern::Qwen2 { json!({"type": "NFC"}) } else { Value::Null }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Pattern {
    type Err = TokenizerError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Pattern::ALL.into_iter().find(|pattern| pattern.name() == name).ok_or_else(|| {
            TokenizerError::new(
                "CONFIG_INVALID",
                format!("no pattern is called {name:?}"),
                "choose gpt2, cl100k, o200k, llama3 or qwen2",
            )
        })
    }
}
