//! What is written loads again, here and in the `tokenizers` crate, and bad files are refused with a reason.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use serde_json::{Value, json};

const TEXT: &str =
    "the cat sat on the mat; the caf\u{e9} sat by the \u{4e2d}\u{6587} mat\r\nthe end. The End.\n";

fn trained(pattern: Pattern) -> Tokenizer {
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size: 280, pattern, ..TrainOptions::default() }).unwrap();
    trainer.count(&[TEXT, "", TEXT]).unwrap();
    assert_eq!((trainer.documents(), trainer.bytes()), (2, 2 * TEXT.len() as u64));
    trainer.finish(&|_| true).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

#[test]
fn tokenizers_are_shared_between_threads_and_trainers_move_to_one() {
    fn shared<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    shared::<Tokenizer>();
    moved::<BpeTrainer>();
    moved::<candlewick_tokenizer::StreamDecoder>();
}

#[test]
fn a_saved_tokenizer_loads_the_same_here_and_in_the_crate() {
    for pattern in Pattern::ALL {
        let tokenizer = trained(pattern);
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save(dir.path()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let expected = [
            "merges.txt",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer.tiktoken",
            "tokenizer_config.json",
            "tokenizer_manifest.json",
            "vocab.json",
        ];
        assert_eq!(names, expected);

        let text = format!("{TEXT}<|endoftext|>{TEXT}");
        let ids = encode(&tokenizer, &text);
        for path in [dir.path().to_path_buf(), dir.path().join("tokenizer.json")] {
            let again = Tokenizer::from_path(&path).unwrap();
            assert_eq!(again.digest(), tokenizer.digest());
            assert_eq!(again.vocab_size(), 280);
            assert_eq!(again.eos_token().unwrap(), (0, "<|endoftext|>"));
            assert_eq!(encode(&again, &text), ids);
            assert_eq!(again.decode(&ids, false), text);
            assert_eq!(again.decode(&ids, true), format!("{TEXT}{TEXT}"));
        }
        let theirs = tokenizers::Tokenizer::from_file(dir.path().join("tokenizer.json")).unwrap();
        assert_eq!(theirs.encode(text.as_str(), false).unwrap().get_ids(), ids);

        let read = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
        };
        let manifest = read("tokenizer_manifest.json");
        assert_eq!(manifest["pattern"], pattern.name());
        assert_eq!((&manifest["documents"], &manifest["unicode"]), (&json!(2), &json!("16.0.0")));
        assert_eq!(manifest["digest"], tokenizer.digest());
        let config = read("tokenizer_config.json");
        assert_eq!(config["eos_token"], "<|endoftext|>");
        assert_eq!(config["add_prefix_space"], false);
        assert_eq!(config["clean_up_tokenization_spaces"], false);
        assert_eq!(config["tokenizer_class"], "PreTrainedTokenizerFast");
        assert_eq!(read("special_tokens_map.json"), json!({"eos_token": "<|endoftext|>"}));
        assert_eq!(read("vocab.json"), read("tokenizer.json")["model"]["vocab"]);

        let model = tokenizers::models::bpe::BPE::from_file(
            dir.path().join("vocab.json").to_str().unwrap(),
            dir.path().join("merges.txt").to_str().unwrap(),
        );
        assert_eq!(model.build().unwrap().get_vocab().len(), 280);
    }
}

#[test]
fn a_copy_of_a_loaded_tokenizer_keeps_every_byte_of_its_files() {
    let first = tempfile::tempdir().unwrap();
    trained(Pattern::Gpt2).save(first.path()).unwrap();
    let config = br#"{"eos_token": {"content": "<|endoftext|>"}, "chat_template": "{{ messages }}"}"#;
    std::fs::write(first.path().join("tokenizer_config.json"), config).unwrap();
    let second = tempfile::tempdir().unwrap();
    Tokenizer::from_path(first.path()).unwrap().save(&second.path().join("deep/er")).unwrap();
    for entry in std::fs::read_dir(first.path()).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |dir: &std::path::Path| std::fs::read(dir.join(&name)).unwrap();
        assert_eq!(read(first.path()), read(&second.path().join("deep/er")), "{name:?}");
    }
}

#[test]
fn documents_treat_a_special_spelling_as_text_and_encode_recognises_it() {
    let tokenizer = trained(Pattern::Gpt2);
    let text = "a<|endoftext|>b";
    let (eos, _) = tokenizer.eos_token().unwrap();
    let mut document = vec![7];
    tokenizer.encode_document(text, &mut document).unwrap();
    assert_eq!(document[0], 7, "ids are appended");
    assert!(!document.contains(&eos));
    assert_eq!(tokenizer.decode(&document[1..], true), text);
    assert_eq!(encode(&tokenizer, text).iter().filter(|&&id| id == eos).count(), 1);
    let long = TEXT.repeat(5000);
    let texts = [text, "", &long, TEXT, &long, text];
    for threads in [0, 1, 2, 5] {
        let batch = tokenizer.encode_batch(&texts, threads).unwrap();
        assert!(batch.iter().eq(texts.iter().map(|text| encode(&tokenizer, text))), "{threads} threads");
        assert!((1..=threads.max(1)).contains(&batch.lists.len()) || threads == 0);
    }
    assert_eq!(tokenizer.encode_batch::<&str>(&[], 2).unwrap().iter().count(), 0);
}

#[test]
fn streaming_gives_what_decoding_gives_and_never_half_a_character() {
    let tokenizer = trained(Pattern::Gpt2);
    let ids = encode(&tokenizer, &format!("{TEXT}\u{1f600}<|endoftext|>"));
    let mut decoder = tokenizer.stream_decoder(false);
    let pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id)).collect();
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')));
    assert_eq!(pieces.concat() + &decoder.finish(), tokenizer.decode(&ids, false));
    let half = &encode(&tokenizer, "\u{1f600}")[..1];
    assert_eq!(decoder.push(half[0]), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
    assert_eq!((tokenizer.token_bytes(280), decoder.push(280)), (None, String::new()));
}

#[test]
fn the_end_of_text_comes_from_the_configuration_or_is_an_error_on_asking() {
    let dir = tempfile::tempdir().unwrap();
    trained(Pattern::Gpt2).save(dir.path()).unwrap();
    let json = std::fs::read(dir.path().join("tokenizer.json")).unwrap();
    let plain = Tokenizer::from_json(&json, None).unwrap();
    assert_eq!(plain.eos_token().unwrap(), (0, "<|endoftext|>"));
    let other = Tokenizer::from_json(&json, Some(br#"{"eos_token": "!"}"#)).unwrap();
    assert_eq!(other.eos_token().unwrap(), (1, "!"));
    assert_ne!(other.digest(), plain.digest());
    let unknown = Tokenizer::from_json(&json, Some(br#"{"eos_token": "<nowhere>"}"#)).err().unwrap();
    assert_eq!(unknown.code, "TOKENIZER_INVALID");
    assert!(unknown.message.contains("<nowhere>"));

    let renamed = String::from_utf8(json).unwrap().replace("<|endoftext|>", "<|other|>");
    let error = Tokenizer::from_json(renamed.as_bytes(), None).unwrap().eos_token().err().unwrap();
    assert_eq!(error.code, "TOKENIZER_INVALID");
    assert!(error.hint.contains("eos_token"));
}

#[test]
fn bad_files_are_refused_with_a_reason() {
    let refused = |json: &str| {
        let error =
            Tokenizer::from_json(json.as_bytes(), None).err().unwrap_or_else(|| panic!("accepted {json}"));
        assert_eq!(error.code, "TOKENIZER_INVALID");
        assert!(!error.message.is_empty() && !error.hint.is_empty());
        error.message
    };
    refused("");
    refused("[1, 2]");
    refused("{}");
    refused(r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}"#);
    refused(r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}"#);
    let dropout =
        r#"{"version": "1.0", "model": {"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []}}"#;
    assert!(refused(dropout).contains("dropout"));

    let nowhere = Tokenizer::from_path(std::path::Path::new("/no/such/tokenizer")).err().unwrap();
    assert_eq!(nowhere.code, "TOKENIZER_INVALID");
    assert!(nowhere.message.contains("/no/such/tokenizer"));
    let dir = tempfile::tempdir().unwrap();
    assert!(Tokenizer::from_path(dir.path()).is_err(), "a directory without tokenizer.json");
}

#[test]
fn an_output_that_cannot_be_written_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("taken");
    std::fs::write(&file, "a file where the directory should be").unwrap();
    let error = trained(Pattern::Gpt2).save(&file).err().unwrap();
    assert_eq!(error.code, "NOT_WRITABLE");
    assert!(error.message.contains("taken"), "{error}");
}

#[test]
fn damaged_files_are_refused_or_load_but_never_panic() {
    let mut random = peer::Random(peer::seed());
    let dir = tempfile::tempdir().unwrap();
    for pattern in [Pattern::Gpt2, Pattern::Qwen2] {
        trained(pattern).save(dir.path()).unwrap();
        let whole = std::fs::read(dir.path().join("tokenizer.json")).unwrap();
        for _ in 0..400 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random.below(3) {
                let at = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[at] = random.next() as u8,
                    1 => bytes.truncate(at + 1),
                    2 => bytes[at] = *random.pick(b"\"{}[]:,0189ntfaeulrs "),
                    _ => {
                        let end = (at + random.below(40)).min(bytes.len());
                        bytes.drain(at..end);
                    }
                }
                if bytes.is_empty() {
                    break;
                }
            }
            match Tokenizer::from_json(&bytes, None) {
                Ok(tokenizer) => {
                    let ids = encode(&tokenizer, TEXT);
                    tokenizer.decode(&ids, true);
                    tokenizer.save(dir.path()).unwrap();
                }
                Err(error) => assert_eq!(error.code, "TOKENIZER_INVALID"),
            }
        }
    }
}
