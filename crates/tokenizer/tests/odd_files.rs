//! What our registry does not know is served by the `tokenizers` crate with its ids, or refused with a reason when
//! the file is loaded or the text is encoded. Nothing of it panics.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Tokenizer, TokenizerError, TrainOptions};
use serde_json::{Value, json};

const VARIED: &str = include_str!("varied.txt");

/// Texts that every odd file gets: plain, with spaces at every side, outside its vocabulary, with added tokens.
const TEXTS: &[&str] = &[
    "",
    " ",
    "the cat",
    "  the  Cat\n",
    "unheard \u{4e2d}\u{6587} \u{1f600}",
    "e\u{301} \u{c9} \u{fb01}",
    "a<|endoftext|>b <|endoftext|> c",
    "[UNK] <unk> \u{2581}the",
    "\0\u{7f}\u{85}",
    VARIED,
];

fn byte_level() -> Value {
    let mut trainer = BpeTrainer::new(TrainOptions { vocab_size: 400, ..TrainOptions::default() }).unwrap();
    trainer.count(&[VARIED]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    trainer.finish(&|_| true).unwrap().save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut file = byte_level();
    change(&mut file);
    file
}

/// A file around a model, with nothing else unless `parts` says so.
fn around(model: Value, parts: Value) -> Value {
    let mut file = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model});
    for (key, value) in parts.as_object().unwrap() {
        file[key] = value.clone();
    }
    file
}

fn added(id: u32, content: &str, lstrip: bool, rstrip: bool, single_word: bool) -> Value {
    json!({"id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
        "normalized": false, "special": true})
}

fn metaspace() -> Value {
    json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true})
}

/// Files that load, each with a name.
fn served() -> Vec<(&'static str, Value)> {
    let words = |unknown: &str| json!({unknown: 0, "the": 1, "cat": 2, "##s": 3, "t": 4, "##he": 5});
    let pieces =
        json!([["<unk>", 0.0], ["\u{2581}", -2.0], ["\u{2581}the", -3.0], ["c", -4.0], ["at", -4.5]]);
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut fallback: serde_json::Map<String, Value> =
        bytes.iter().zip(1..).map(|(byte, id)| (byte.clone(), json!(id))).collect();
    fallback.insert("<unk>".to_owned(), json!(0));
    for (token, id) in [("\u{2581}", 257), ("t", 258), ("h", 259), ("e", 260), ("th", 261), ("the", 262)] {
        fallback.insert(token.to_owned(), json!(id));
    }
    let gemma = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        "vocab": fallback, "merges": [["t", "h"], ["th", "e"]]});
    let sentence_piece = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    vec![
        (
            "WordPiece",
            around(
                json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "max_input_chars_per_word": 100, "vocab": words("[UNK]")}),
                json!({"pre_tokenizer": {"type": "BertPreTokenizer"},
                    "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                        "strip_accents": null, "lowercase": true},
                    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}}),
            ),
        ),
        (
            "WordLevel",
            around(
                json!({"type": "WordLevel", "vocab": words("<unk>"), "unk_token": "<unk>"}),
                json!({"pre_tokenizer": {"type": "Whitespace"}}),
            ),
        ),
        (
            "Unigram with Metaspace",
            around(
                json!({"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": false}),
                json!({"pre_tokenizer": metaspace(), "decoder": metaspace(),
                    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"},
                        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]}}),
            ),
        ),
        (
            "BPE with byte_fallback, as SentencePiece writes it",
            around(
                gemma,
                json!({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}]},
                    "decoder": sentence_piece}),
            ),
        ),
        (
            "BPE of characters without an unknown token",
            around(
                json!({"type": "BPE", "dropout": null, "unk_token": null, "vocab": {"t": 0, "h": 1, "th": 2},
                    "merges": [["t", "h"]]}),
                json!({}),
            ),
        ),
        (
            "bytes missing",
            changed(|file| {
                let vocab = file["model"]["vocab"].as_object_mut().unwrap();
                vocab.retain(|token, _| !["\u{100}", "\u{e4}"].contains(&token.as_str()));
                file["model"]["merges"] = json!([]);
            }),
        ),
        ("add_prefix_space", changed(|file| file["pre_tokenizer"]["add_prefix_space"] = true.into())),
        ("dropout of 0", changed(|file| file["model"]["dropout"] = 0.0.into())),
        (
            "truncation and padding",
            changed(|file| {
                file["truncation"] = json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst",
                    "stride": 0});
                file["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
                file["normalizer"] = json!({"type": "Lowercase"});
            }),
        ),
        (
            "a post-processor that adds tokens",
            changed(|file| {
                let token = json!({"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}});
                let text = json!({"Sequence": {"id": "A", "type_id": 0}});
                file["post_processor"] = json!({"type": "TemplateProcessing", "single": [token, text],
                    "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
                    "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0],
                        "tokens": ["<|endoftext|>"]}}});
                file["normalizer"] = json!({"type": "NFKC"});
            }),
        ),
        (
            "added tokens that take space with them",
            changed(|file| {
                file["added_tokens"] = json!([
                    added(0, "<|endoftext|>", true, true, false),
                    added(400, "cat", false, false, true),
                    added(401, "C", true, false, false)
                ]);
            }),
        ),
        (
            "a normalizer of many parts",
            changed(|file| {
                file["normalizer"] = json!({"type": "Sequence", "normalizers": [{"type": "NFD"},
                    {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true,
                    "strip_right": true}, {"type": "Prepend", "prepend": "_"}]});
            }),
        ),
        (
            "pre-tokenizers of many parts",
            changed(|file| {
                file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Digits", "individual_digits": true}, {"type": "Punctuation", "behavior": "Isolated"},
                    {"type": "UnicodeScripts"},
                    {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
            }),
        ),
    ]
}

fn load(file: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(&serde_json::to_vec(file).unwrap(), None)
}

/// Does everything that there is to do with a tokenizer; failures have the code that a user sees.
fn exercise(tokenizer: &Tokenizer, dir: &std::path::Path) {
    for text in TEXTS {
        for encode in [Tokenizer::encode, Tokenizer::encode_document] {
            let mut ids = Vec::new();
            match encode(tokenizer, text, &mut ids) {
                Ok(()) => {
                    tokenizer.decode(&ids, false);
                    tokenizer.decode(&ids, true);
                    let mut decoder = tokenizer.stream_decoder(false);
                    ids.iter().for_each(|&id| drop(decoder.push(id)));
                    decoder.finish();
                }
                Err(error) => assert_eq!(error.code, "TOKENIZER_INVALID"),
            }
        }
    }
    tokenizer.decode(&[0, 1, u32::MAX, 5], true);
    tokenizer.unreachable_tokens();
    tokenizer.save(dir).unwrap();
}

#[test]
fn odd_files_give_the_crates_ids() {
    let dir = tempfile::tempdir().unwrap();
    for (name, file) in served() {
        let ours = load(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ours.pattern(), None, "{name}");
        let mut theirs = tokenizers::Tokenizer::from_bytes(serde_json::to_vec(&file).unwrap()).unwrap();
        theirs.with_truncation(None).unwrap();
        theirs.with_padding(None);
        for text in TEXTS {
            let mut ids = Vec::new();
            ours.encode(text, &mut ids).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(ids, theirs.encode(*text, false).unwrap().get_ids(), "{name}: {text:?}");
        }
        exercise(&ours, dir.path());
    }
}

#[test]
fn files_that_could_not_encode_some_text_are_refused_when_they_are_loaded() {
    let refused = |file: Value, reason: &str| {
        let error = load(&file).err().unwrap_or_else(|| panic!("accepted {file}"));
        assert_eq!(error.code, "TOKENIZER_INVALID");
        assert!(error.message.contains(reason), "{error}");
        assert!(!error.hint.is_empty());
    };
    let words = json!({"the": 0, "cat": 1});
    refused(
        around(json!({"type": "WordLevel", "vocab": words, "unk_token": "<unk>"}), json!({})),
        "unk_token \"<unk>\" is not in its vocabulary",
    );
    refused(
        around(
            json!({"type": "WordPiece", "vocab": words, "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100}),
            json!({}),
        ),
        "unk_token \"[UNK]\" is not in its vocabulary",
    );
    refused(
        around(json!({"type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]]}), json!({})),
        "no unknown token",
    );
    refused(changed(|file| file["model"]["dropout"] = 0.1.into()), "dropout");
}

#[test]
fn a_text_that_the_crate_cannot_encode_is_an_error_that_shows_the_text() {
    // Oniguruma gives up on an expression that backtracks without end.
    let file = changed(|file| {
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(a+)+[bd]"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]});
    });
    let tokenizer = load(&file).unwrap();
    let mut ids = vec![7];
    let text = format!("aaa {}c", "a".repeat(100));
    let error = tokenizer.encode_document(&text, &mut ids).unwrap_err();
    assert_eq!((error.code, ids.as_slice()), ("TOKENIZER_INVALID", &[7][..]));
    assert!(error.message.contains("105 bytes, \"aaa aaaa"), "{error}");
    assert!(tokenizer.encode_batch(&["fine", &text], 2).is_err());
    tokenizer.encode("still fine", &mut ids).unwrap();
    assert_eq!(tokenizer.decode(&ids[1..], false), "still fine");
}

#[test]
fn damaged_odd_files_are_refused_or_load_but_never_panic() {
    let mut random = peer::Random(peer::seed());
    let dir = tempfile::tempdir().unwrap();
    for (_, file) in served() {
        let whole = serde_json::to_vec(&file).unwrap();
        for round in 0..80 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                // Half of the damage goes to what stands around the vocabulary, which is most of the file.
                let at = random.below(if round % 2 == 0 { bytes.len() } else { bytes.len().min(1500) });
                match random.below(3) {
                    0 => bytes[at] ^= 1 << random.below(8),
                    1 if random.below(4) == 0 => bytes.truncate(at + 1),
                    _ => bytes[at] = *random.pick(b"\"{}[]:,0189ntfaeulrs "),
                }
            }
            match Tokenizer::from_json(&bytes, None) {
                Ok(tokenizer) => exercise(&tokenizer, dir.path()),
                Err(error) => assert_eq!(error.code, "TOKENIZER_INVALID"),
            }
        }
    }
}
