//! Ids equal the `tokenizers` crate's, for every pattern, on the texts where splitters and mergers go wrong.
//!
//! `CANDLEWICK_ROUNDS` sets the number of random texts a pattern, `CANDLEWICK_SEED` repeats a run.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use peer::{Random, random_text, seed};
use serde_json::{Value, json};

const VARIED: &str = include_str!("varied.txt");

struct Pair {
    name: String,
    ours: Tokenizer,
    recognising: tokenizers::Tokenizer,
    plain: tokenizers::Tokenizer,
}

impl Pair {
    fn new(name: &str, tokenizer_json: &[u8]) -> Self {
        let ours = Tokenizer::from_json(tokenizer_json, None).unwrap();
        assert!(ours.pattern().is_some(), "{name} is not served by our own encoder");
        let recognising = tokenizers::Tokenizer::from_bytes(tokenizer_json).unwrap();
        let mut plain = recognising.clone();
        plain.set_encode_special_tokens(true);
        Self { name: name.to_owned(), ours, recognising, plain }
    }

    fn check(&self, text: &str) {
        let mut ids = Vec::new();
        self.ours.encode(text, &mut ids).unwrap();
        let theirs = self.recognising.encode_fast(text, false).unwrap();
        assert!(ids == theirs.get_ids(), "{}: encode {text:?}", self.name);
        ids.clear();
        self.ours.encode_document(text, &mut ids).unwrap();
        let theirs = self.plain.encode_fast(text, false).unwrap();
        assert!(ids == theirs.get_ids(), "{}: encode_document {text:?}", self.name);
        if self.ours.pattern() != Some(Pattern::Qwen2) {
            assert_eq!(self.ours.decode(&ids, false), text, "{}", self.name);
        }
    }
}

fn train(pattern: Pattern, vocab_size: usize) -> Value {
    let special_tokens = ["<|endoftext|>", "<|im_start|>", "<|im_start|>user"].map(str::to_owned).to_vec();
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size, pattern, special_tokens, ..TrainOptions::default() })
            .unwrap();
    trainer.count(&[VARIED]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    trainer.finish(&|_| true).unwrap().save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

fn pair(name: &str, file: &Value) -> Pair {
    Pair::new(name, &serde_json::to_vec(file).unwrap())
}

/// Every pattern, then what loaded files may carry: `ignore_merges` with tokens that no merge reaches, merges out of
/// order, added tokens that are not special or not raw, pre-tokenizers written another way.
fn pairs() -> Vec<Pair> {
    let mut pairs: Vec<Pair> =
        Pattern::ALL.into_iter().map(|pattern| pair(pattern.name(), &train(pattern, 900))).collect();

    let mut llama = train(Pattern::Llama3, 900);
    llama["model"]["ignore_merges"] = true.into();
    for (word, id) in [("hello", 900), ("\u{120}World", 901), ("\u{120}//", 902), ("123", 903)] {
        llama["model"]["vocab"][word] = id.into();
    }
    pairs.push(pair("llama3 with ignore_merges", &llama));

    let mut reversed = train(Pattern::Gpt2, 900);
    reversed["model"]["merges"].as_array_mut().unwrap().reverse();
    pairs.push(pair("merges in reverse", &reversed));

    let mut added = train(Pattern::Gpt2, 900);
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
    let mut original = train(Pattern::Gpt2, 900);
    original["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true});
    let model = original["model"].as_object_mut().unwrap();
    model.retain(|key, _| !["type", "ignore_merges", "byte_fallback"].contains(&key.as_str()));
    for affix in ["unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
        model.insert(affix.to_owned(), "".into());
    }
    pairs.push(pair("gpt2 as it was published", &original));

    let mut removed = train(Pattern::Cl100k, 900);
    removed["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed".into();
    removed["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into();
    removed["pre_tokenizer"]["pretokenizers"][1]["trim_offsets"] = true.into();
    pairs.push(pair("cl100k by removal of what does not match", &removed));
    pairs
}

/// Random text with special spellings and the vocabulary's own words strewn in.
fn text(random: &mut Random, pair: &Pair) -> String {
    let mut text = random_text(random, 24);
    for _ in 0..random.below(4) {
        let word = match random.below(3) {
            0 => random
                .pick(&["<|endoftext|>", "<|im_start|>", "<|im_start|>user", "<|im_start", "<tool>"])
                .to_string(),
            1 => "    ".to_owned(),
            _ => {
                let id = random.below(pair.ours.vocab_size()) as u32;
                String::from_utf8_lossy(pair.ours.token_bytes(id).unwrap_or_default()).into_owned()
            }
        };
        let mut at = random.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &word);
    }
    text
}

#[test]
fn ids_equal_the_crates_on_random_text() {
    let mut random = Random(seed());
    let rounds =
        std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1500);
    for pair in pairs() {
        for _ in 0..rounds {
            pair.check(&text(&mut random, &pair));
        }
    }
}

#[test]
fn ids_equal_the_crates_on_real_and_on_varied_text() {
    let mut documents = peer::real_text(200_000);
    documents.extend([VARIED.to_owned(), String::new(), VARIED.repeat(3), VARIED.replace('\n', "\r\n")]);
    documents.extend(VARIED.lines().map(str::to_owned));
    for pair in pairs() {
        for document in &documents {
            pair.check(document);
        }
    }
}

#[test]
fn ids_equal_the_crates_on_words_past_every_border() {
    for pair in pairs() {
        for length in [14, 15, 16, 17, 47, 48, 49, 63, 64, 65, 255, 256, 257, 1000, 16_384, 16_385, 100_000] {
            pair.check(&"a".repeat(length));
            pair.check(&format!("x{} ", " ".repeat(length)));
            pair.check(&"\u{4e2d}\u{6587}ab=".repeat(length / 3));
            pair.check(&"the=quick,".repeat(length / 5).replace(['=', ','], ""));
        }
    }
}

#[test]
fn ids_equal_the_crates_on_words_longer_than_a_window() {
    let mut random = Random(seed());
    let letters: Vec<char> = VARIED.chars().filter(|c| c.is_alphabetic()).collect();
    for pair in pairs() {
        for _ in 0..3 {
            let length = 17_000 + random.below(30_000);
            let start = random.below(letters.len());
            pair.check(&letters.iter().cycle().skip(start).take(length).collect::<String>());
            let few = 2 + random.below(60);
            pair.check(
                &(0..length).map(|_| letters[random.below(few.min(letters.len()))]).collect::<String>(),
            );
        }
    }
}

#[test]
fn every_token_of_a_trained_vocabulary_encodes_to_itself() {
    for pattern in Pattern::ALL {
        let trained = pair(pattern.name(), &train(pattern, 900));
        assert_eq!(trained.ours.unreachable_tokens(), Some(vec![]), "{pattern}");
    }
    let mut file = train(Pattern::Gpt2, 900);
    file["model"]["vocab"]["unheard"] = 900.into();
    assert_eq!(pair("one token more", &file).ours.unreachable_tokens(), Some(vec![900]));
}

#[test]
fn long_words_take_linear_time() {
    let trained = train(Pattern::Gpt2, 900);
    let mut reversed = trained.clone();
    reversed["model"]["merges"].as_array_mut().unwrap().reverse();
    for file in [trained, reversed] {
        let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), None).unwrap();
        let seconds = |length: usize| {
            let text = "ab".repeat(length / 2);
            let start = std::time::Instant::now();
            let mut ids = Vec::new();
            tokenizer.encode_document(&text, &mut ids).unwrap();
            assert_eq!(tokenizer.decode(&ids, false), text);
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (seconds(50_000), seconds(800_000));
        // Sixteen times the text: quadratic time would be 256 times as long.
        assert!(long < 100.0 * short.max(0.005), "{short} s, then {long} s");
    }
}

#[test]
fn files_outside_the_registry_are_served_by_the_crate() {
    let other = |change: &dyn Fn(&mut Value)| {
        let mut file = train(Pattern::Gpt2, 400);
        change(&mut file);
        let bytes = serde_json::to_vec(&file).unwrap();
        let ours = Tokenizer::from_json(&bytes, None).unwrap();
        assert_eq!(ours.pattern(), None);
        let theirs = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        for text in [VARIED, "a <|endoftext|> b", ""] {
            let mut ids = Vec::new();
            ours.encode(text, &mut ids).unwrap();
            assert_eq!(ids, theirs.encode_fast(text, false).unwrap().get_ids());
        }
    };
    other(&|file| file["pre_tokenizer"]["add_prefix_space"] = true.into());
    other(&|file| file["normalizer"] = json!({"type": "Lowercase"}));
    other(&|file| {
        file["model"]["unk_token"] = "".into();
        file["pre_tokenizer"]["add_prefix_space"] = true.into();
    });
    other(&|file| file["added_tokens"][0]["lstrip"] = true.into());
    other(&|file| file["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token != "\u{100}"));
    other(&|file| {
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    });
}
