//! Offsets equal those of the `tokenizers` crate, byte for byte, for every pattern.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use serde_json::{Value, json};

const VARIED: &str = include_str!("varied.txt");

fn file(pattern: Pattern) -> Value {
    let special_tokens = ["<|endoftext|>", "<|im_start|>"].map(str::to_owned).to_vec();
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size: 800, pattern, special_tokens, ..TrainOptions::default() })
            .unwrap();
    trainer.count(&[VARIED]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    trainer.finish(&|_| true).unwrap().save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

fn check(name: &str, ours: &Tokenizer, theirs: &tokenizers::Tokenizer, text: &str) {
    let (ids, ranges) = ours.encode_with_offsets(text).unwrap();
    let encoding = theirs.encode(text, false).unwrap();
    assert_eq!(ids, encoding.get_ids(), "{name}: {text:?}");
    let expected: Vec<_> = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
    assert_eq!(ranges, expected, "{name}: {text:?}");
    let mut plain = Vec::new();
    ours.encode(text, &mut plain).unwrap();
    assert_eq!(ids, plain);
}

#[test]
fn offsets_equal_the_crates_on_hard_text() {
    let mut random = peer::Random(peer::seed());
    let rounds = std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(800);
    let mut files: Vec<(String, Value)> =
        Pattern::ALL.into_iter().map(|pattern| (pattern.name().to_owned(), file(pattern))).collect();
    let mut added = file(Pattern::Gpt2);
    for (id, content, normalized) in [(800, "<tool>", false), (801, "   ", true), (802, "\u{120}hello", true)]
    {
        added["added_tokens"].as_array_mut().unwrap().push(json!({"id": id, "content": content,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized, "special": false}));
    }
    added["model"]["vocab"]["\u{120}hello"] = 802.into();
    added["model"]["vocab"]["<tool>"] = 800.into();
    added["model"]["vocab"]["   "] = 801.into();
    files.push(("added tokens".to_owned(), added));
    for (name, file) in files {
        let bytes = serde_json::to_vec(&file).unwrap();
        let ours = Tokenizer::from_json(&bytes, None).unwrap();
        assert!(ours.pattern().is_some(), "{name}: {:?}", ours.outside_registry());
        let theirs = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        for text in ["", VARIED, "<|endoftext|>", "e\u{301}<|im_start|>e\u{301}x", "\u{1f600}\u{1f600}"] {
            check(&name, &ours, &theirs, text);
        }
        for _ in 0..rounds {
            let mut text = peer::random_text(&mut random, 20);
            for _ in 0..random.below(3) {
                text.push_str(random.pick::<&str>(&[
                    "<|im_start|>",
                    "<tool>",
                    " hello",
                    "\u{120}hello",
                    "A\u{30a}",
                ]));
                text.push_str(&peer::random_text(&mut random, 4));
            }
            check(&name, &ours, &theirs, &text);
        }
    }
}

#[test]
fn ranges_cover_the_text_and_can_be_sliced() {
    let mut random = peer::Random(peer::seed());
    for pattern in Pattern::ALL {
        let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&file(pattern)).unwrap(), None).unwrap();
        for _ in 0..300 {
            let text = peer::random_text(&mut random, 20);
            let (_, ranges) = tokenizer.encode_with_offsets(&text).unwrap();
            let mut covered = 0;
            for range in ranges {
                let follows = range.start <= covered || pattern == Pattern::Qwen2;
                assert!(follows && range.end >= covered, "{pattern}: {text:?}");
                assert!(text.get(range.clone()).is_some_and(|part| !part.is_empty()), "{pattern}: {text:?}");
                covered = range.end;
            }
            // NFC leaves the marks that it composes out, as the crate does.
            if pattern != Pattern::Qwen2 {
                assert_eq!(covered, text.len(), "{pattern}: {text:?}");
            }
        }
    }
}

#[test]
fn files_that_the_crate_serves_have_its_offsets() {
    let mut lower = file(Pattern::Gpt2);
    lower["normalizer"] =
        json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]});
    lower["pre_tokenizer"]["add_prefix_space"] = true.into();
    let bytes = serde_json::to_vec(&lower).unwrap();
    let ours = Tokenizer::from_json(&bytes, None).unwrap();
    assert_eq!(ours.pattern(), None);
    let theirs = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
    for text in ["", "The \u{fb01}ne CAT <|endoftext|> sat", VARIED] {
        check("served by the crate", &ours, &theirs, text);
    }
}
