//! Our encoder beside the `tokenizers` crate's, for every pattern and for what loaded files may carry.

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use serde_json::{Value, json};

use super::text::{Random, random_text};

pub(crate) const VARIED: &str = include_str!("../varied.txt");

/// One `tokenizer.json`, loaded twice.
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) ours: Tokenizer,
    recognising: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
    /// The spellings of special tokens: a text without them has the same ids either way.
    special: Vec<String>,
}

impl Pair {
    pub(crate) fn new(name: &str, tokenizer_json: &[u8]) -> Self {
        let ours = Tokenizer::from_json(tokenizer_json, None).unwrap();
        assert!(ours.pattern().is_some(), "{name} is not served by our own encoder");
        let recognising = tokenizers::Tokenizer::from_bytes(tokenizer_json).unwrap();
        let mut plain = recognising.clone();
        plain.set_encode_special_tokens(true);
        let added = recognising.get_added_tokens_decoder().into_values();
        let special = added.filter(|token| token.special).map(|token| token.content).collect();
        Self { name: name.to_owned(), ours, recognising, plain, special }
    }

    /// Ids equal the crate's, special tokens recognised and not, and decode to the text.
    pub(crate) fn check(&self, text: &str) {
        let mut ids = Vec::new();
        self.ours.encode(text, &mut ids).unwrap();
        let mut theirs = self.recognising.encode_fast(text, false).unwrap();
        assert!(ids == theirs.get_ids(), "{}: encode {text:?}", self.name);
        if self.special.iter().any(|token| text.contains(token)) {
            theirs = self.plain.encode_fast(text, false).unwrap();
        }
        ids.clear();
        self.ours.encode_document(text, &mut ids).unwrap();
        assert!(ids == theirs.get_ids(), "{}: encode_document {text:?}", self.name);
        if self.ours.pattern() != Some(Pattern::Qwen2) {
            assert_eq!(self.ours.decode(&ids, false), text, "{}", self.name);
        }
    }

    /// The same without words in the crate's cache.
    pub(crate) fn fresh(&self) -> Self {
        let recognising = self.recognising.clone();
        let (name, ours, plain) = (self.name.clone(), self.ours.clone(), self.plain.clone());
        Self { name, ours, recognising, plain, special: self.special.clone() }
    }

    /// Random text with special spellings and the vocabulary's own words strewn in.
    pub(crate) fn random_text(&self, random: &mut Random) -> String {
        if random.below(8) == 0 {
            // Nothing but the vocabulary's words.
            let between = *random.pick(&["", "", " ", "\n"]);
            let words = 1 + random.below(20);
            return (0..words).map(|_| self.word(random) + between).collect();
        }
        let mut text = random_text(random, 24);
        for _ in 0..random.below(4) {
            let mut word = match random.below(3) {
                0 => random
                    .pick(&["<|endoftext|>", "<|im_start|>", "<|im_start|>user", "<|im_start", "<tool>"])
                    .to_string(),
                1 => "    ".to_owned(),
                _ => self.word(random),
            };
            if random.below(2) == 0 {
                let spaces = ["", " ", "  ", "\n", "\r\n", "\t", "\u{a0}"];
                word = [*random.pick(&spaces), &word, *random.pick(&spaces)].concat();
            }
            let mut at = random.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            text.insert_str(at, &word);
        }
        text
    }

    /// A token of the vocabulary; what is not UTF-8 in it is replaced.
    fn word(&self, random: &mut Random) -> String {
        let id = random.below(self.ours.vocab_size()) as u32;
        String::from_utf8_lossy(self.ours.token_bytes(id).unwrap_or_default()).into_owned()
    }
}

/// A `tokenizer.json` trained on the varied text.
pub(crate) fn trained(pattern: Pattern, vocab_size: usize) -> Value {
    trained_on(pattern, vocab_size, &[VARIED])
}

/// A `tokenizer.json` trained on `documents`.
pub(crate) fn trained_on(pattern: Pattern, vocab_size: usize, documents: &[&str]) -> Value {
    let special_tokens = ["<|endoftext|>", "<|im_start|>", "<|im_start|>user"].map(str::to_owned).to_vec();
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size, pattern, special_tokens, ..TrainOptions::default() })
            .unwrap();
    trainer.count(documents).unwrap();
    let dir = tempfile::tempdir().unwrap();
    trainer.finish(&|_| true).unwrap().save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

pub(crate) fn pair(name: &str, file: &Value) -> Pair {
    Pair::new(name, &serde_json::to_vec(file).unwrap())
}

/// Every pattern, then what loaded files may carry: `ignore_merges` with tokens that no merge reaches, merges out of
/// order, added tokens that are not special or not raw, pre-tokenizers written another way.
pub(crate) fn pairs() -> Vec<Pair> {
    let mut pairs: Vec<Pair> =
        Pattern::ALL.into_iter().map(|pattern| pair(pattern.name(), &trained(pattern, 900))).collect();

    let mut llama = trained(Pattern::Llama3, 900);
    llama["model"]["ignore_merges"] = true.into();
    for (word, id) in [("hello", 900), ("\u{120}World", 901), ("\u{120}//", 902), ("123", 903)] {
        llama["model"]["vocab"][word] = id.into();
    }
    pairs.push(pair("llama3 with ignore_merges", &llama));

    let mut reversed = trained(Pattern::Gpt2, 900);
    reversed["model"]["merges"].as_array_mut().unwrap().reverse();
    pairs.push(pair("merges in reverse", &reversed));

    let mut added = trained(Pattern::Gpt2, 900);
    let token = |id: u32, content: &str, normalized: bool, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": normalized, "special": special})
    };
    let list = added["added_tokens"].as_array_mut().unwrap();
    list.push(token(900, "<tool>", false, false));
    list.push(token(901, "   ", true, false));
    list.push(token(902, "<|im", true, true));
    list.push(token(903, "hello", true, false));
    added["model"]["merges"] = added["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| json!(format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap())))
        .collect();
    added["model"]["continuing_subword_prefix"] = "".into();
    pairs.push(pair("added tokens of every kind", &added));

    // GPT-2's own file: no type, empty affixes and unknown token, no `use_regex`.
    let mut original = trained(Pattern::Gpt2, 900);
    original["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let model = original["model"].as_object_mut().unwrap();
    model.retain(|key, _| !["type", "ignore_merges", "byte_fallback"].contains(&key.as_str()));
    for affix in ["unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
        model.insert(affix.to_owned(), "".into());
    }
    pairs.push(pair("gpt2 as it was published", &original));

    let mut removed = trained(Pattern::Cl100k, 900);
    removed["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed".into();
    removed["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into();
    removed["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = true.into();
    pairs.push(pair("cl100k by removal of what does not match", &removed));
    pairs
}
