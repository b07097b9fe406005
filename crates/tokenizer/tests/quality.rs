//! The quality report counts what a person would count by hand, and the same for any grouping of the documents.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Pattern, QualitySample, Tokenizer, TrainOptions};
use serde_json::json;

const VARIED: &str = include_str!("varied.txt");

fn trained(pattern: Pattern, vocab_size: usize, text: &str) -> Tokenizer {
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size, pattern, ..TrainOptions::default() }).unwrap();
    trainer.count(&[text]).unwrap();
    trainer.finish(&|_| true).unwrap()
}

#[test]
fn a_small_sample_is_counted_as_by_hand() {
    // One merge: " t". So `the` begins a document as three bytes, and ` to` is two tokens.
    let tokenizer = trained(Pattern::Gpt2, 258, "to to to to");
    assert_eq!(tokenizer.token_bytes(257).unwrap(), b"to");
    let mut sample = QualitySample::new(&tokenizer);
    sample.count(&["to to 12!", "", "\u{4e2d}to"]).unwrap();
    let report = sample.report();
    assert_eq!((report.documents, report.bytes, report.characters, report.words), (2, 14, 12, 4));
    // to| |to| |1|2|! and three bytes|to
    assert_eq!(report.tokens, 7 + 4);
    assert_eq!(report.bytes_per_token, 14.0 / 11.0);
    assert_eq!(report.tokens_per_word, 11.0 / 4.0);
    assert_eq!((report.single_byte_tokens, report.partial_character_tokens), (8, 3));
    assert_eq!(report.lossless_documents, 2);
    let row = |name: &str| {
        let row = report.scripts.iter().find(|row| row.script == name).unwrap_or_else(|| panic!("no {name}"));
        (row.bytes, row.characters, row.tokens, row.words)
    };
    assert_eq!(report.scripts.len(), 4);
    // The word with a Han character first is Han's, which sets no spaces.
    assert_eq!(row("Latin"), (6, 6, 3, Some(2)));
    assert_eq!(row("Han"), (3, 1, 3, None));
    assert_eq!(row("digits"), (2, 2, 2, None));
    assert_eq!(row("punctuation, symbols and spaces"), (3, 3, 3, None));
    assert_eq!(report.longest[0].text, "to");
    assert_eq!((report.longest[0].id, report.longest[0].bytes, report.longest[0].count), (257, 2, 3));
    // Of 257 tokens that are not special: to, space, 1, 2, !, and the three bytes came.
    assert_eq!((report.unreached.count, report.unreached.of), (257 - 8, 257));
}

#[test]
fn the_grouping_of_documents_changes_nothing() {
    let tokenizer = trained(Pattern::Qwen2, 700, VARIED);
    let documents: Vec<String> = (1..300).map(|n| VARIED.chars().skip(n).take(n * 7).collect()).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let mut all = QualitySample::new(&tokenizer);
    all.count(&documents).unwrap();
    let mut one_by_one = QualitySample::new(&tokenizer);
    documents.iter().for_each(|document| one_by_one.count(&[document]).unwrap());
    assert_eq!(all.report(), one_by_one.report());
    let report = all.report();
    let mut ids = Vec::new();
    documents.iter().for_each(|document| tokenizer.encode_document(document, &mut ids).unwrap());
    assert_eq!(report.tokens, ids.len() as u64);
    assert_eq!(report.scripts.iter().map(|row| row.tokens).sum::<u64>(), report.tokens);
    assert_eq!(report.scripts.iter().map(|row| row.bytes).sum::<u64>(), report.bytes);
    assert_eq!(report.lossless_documents, report.documents);
    assert_eq!(all.compression(&tokenizer).unwrap().tokens, report.tokens);
}

#[test]
fn files_that_the_crate_serves_are_measured_too_and_losses_show() {
    let file = json!({"version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "the": 1, "cat": 2}, "unk_token": "<unk>"}});
    let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), None).unwrap();
    let mut sample = QualitySample::new(&tokenizer);
    sample.count(&["the cat", "the dog sat", "\u{4e2d}\u{6587} the"]).unwrap();
    let report = sample.report();
    assert_eq!((report.tokens, report.words, report.lossless_documents), (7, 7, 1));
    let row = |name: &str| report.scripts.iter().find(|row| row.script == name).unwrap().tokens;
    assert_eq!((row("Latin"), row("Han")), (6, 1));
    assert_eq!((report.unreached.count, report.unreached.of), (0, 3));
    assert_eq!(sample.by_vocab_size().unwrap().len(), 1);

    let facts = tokenizer.facts().unwrap();
    assert_eq!((facts.encoder, facts.pattern, facts.unicode), ("tokenizers", None, None));
    assert_eq!(facts.outside_registry.as_deref(), Some("its model is WordLevel, not BPE"));
    assert_eq!((facts.unreachable, facts.end_of_text, facts.merges), (None, None, None));
    assert!(facts.no_rank_file.is_some());
}

#[test]
fn facts_say_what_a_trained_tokenizer_is() {
    let tokenizer = trained(Pattern::Qwen2, 400, VARIED);
    let facts = tokenizer.facts().unwrap();
    assert_eq!((facts.encoder, facts.pattern, facts.unicode), ("candlewick", Some("qwen2"), Some("16.0.0")));
    assert_eq!((facts.normalizer.as_deref(), facts.vocab_size, facts.merges), (Some("NFC"), 400, Some(143)));
    assert_eq!(facts.end_of_text.unwrap().text, "<|endoftext|>");
    assert_eq!((facts.special_tokens.len(), facts.added_tokens.len()), (1, 0));
    let unreachable = facts.unreachable.unwrap();
    assert_eq!((unreachable.count, unreachable.of), (0, 399));
    assert_eq!((facts.outside_registry, facts.no_rank_file), (None, None));
}

#[test]
fn a_vocabulary_cut_short_is_the_smaller_vocabulary() {
    for pattern in Pattern::ALL {
        let large = trained(pattern, 900, VARIED);
        let small = trained(pattern, 500, VARIED);
        let cut = large.cut_to(500).unwrap().unwrap();
        let ids = |tokenizer: &Tokenizer| {
            let mut ids = Vec::new();
            tokenizer.encode_document(VARIED, &mut ids).unwrap();
            ids
        };
        assert_eq!(ids(&cut), ids(&small), "{pattern}");
        assert!(large.cut_to(256).unwrap().is_none(), "no room for the bytes and the special token");
        assert_eq!(ids(&large.cut_to(100_000).unwrap().unwrap()), ids(&large));
    }
    let mut sample = QualitySample::new(&trained(Pattern::Gpt2, 1100, &VARIED.repeat(2)));
    sample.count(&[VARIED]).unwrap();
    let sizes = sample.by_vocab_size().unwrap();
    assert_eq!(sizes.iter().map(|at| at.vocab_size).collect::<Vec<_>>(), [1024, 1100]);
    assert!(sizes[0].compression.bytes_per_token <= sizes[1].compression.bytes_per_token);
}

#[test]
fn a_rank_file_read_back_gives_the_same_ids() {
    let mut random = peer::Random(peer::seed());
    for pattern in Pattern::ALL {
        let tokenizer = trained(pattern, 900, VARIED);
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let file = std::fs::read(dir.path().join("tokenizer.tiktoken")).unwrap();
        assert_eq!(file.iter().filter(|&&byte| byte == b'\n').count(), 899, "all but the special token");
        let again = Tokenizer::from_rank_file(&file, pattern).unwrap();
        for _ in 0..200 {
            let text = peer::random_text(&mut random, 30);
            let (mut ids, mut theirs) = (Vec::new(), Vec::new());
            tokenizer.encode_document(&text, &mut ids).unwrap();
            again.encode_document(&text, &mut theirs).unwrap();
            assert_eq!(ids, theirs, "{pattern}: {text:?}");
        }
    }
    for wrong in ["", "IQ==", "IQ== x\n", "?? 1\n", "IQ== 0\n"] {
        let error = Tokenizer::from_rank_file(wrong.as_bytes(), Pattern::Gpt2).err().unwrap();
        assert_eq!(error.code, "TOKENIZER_INVALID", "{wrong}");
    }
}

#[test]
fn no_rank_file_is_written_where_tiktoken_would_give_other_ids() {
    let dir = tempfile::tempdir().unwrap();
    trained(Pattern::Gpt2, 400, VARIED).save(dir.path()).unwrap();
    let ranks = dir.path().join("tokenizer.tiktoken");
    assert!(ranks.is_file());
    let json = std::fs::read(dir.path().join("tokenizer.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value), reason: &str| {
        let mut other = file.clone();
        change(&mut other);
        let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&other).unwrap(), None).unwrap();
        let why = tokenizer.facts().unwrap().no_rank_file.unwrap();
        assert!(why.contains(reason), "{why}");
        tokenizer.save(dir.path()).unwrap();
        assert!(!ranks.exists(), "one from before is removed, as it gives other ids now");
    };
    refused(&|file| file["model"]["vocab"]["unheard"] = 400.into(), "1 of its tokens");
    refused(&|file| file["pre_tokenizer"]["add_prefix_space"] = true.into(), "tokenizers library");
    refused(
        &|file| {
            let merges = file["model"]["merges"].as_array_mut().unwrap();
            merges.swap(0, 1);
        },
        "order of its merges",
    );
    refused(&|file| file["model"]["ignore_merges"] = true.into(), "ignore_merges");
}
