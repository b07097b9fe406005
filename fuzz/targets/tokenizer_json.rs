//! A `tokenizer.json` loads or is refused with a code, and what loads encodes and decodes without a panic.
//!
//! The first byte chooses: the rest is the file itself, or says how a valid one is changed.
#![no_main]

use std::panic::catch_unwind;
use std::sync::LazyLock;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const TEXTS: &[&str] = &[
    "",
    "the cat's  THE\r\n\n caf\u{e9} e\u{301} \u{4e2d}\u{6587} 1234 <|endoftext|> \u{1f600}\0\u{85}\u{a0}'\u{17f}",
    "  aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  ",
];

/// A valid file of each pattern.
static FILES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let of = |pattern| {
        let options = TrainOptions { vocab_size: 275, pattern, ..TrainOptions::default() };
        let mut trainer = BpeTrainer::new(options).expect("the options are valid");
        trainer
            .count(&["the cat sat on the mat; the caf\u{e9} sat by the mat. aaaa aaaa aaaa"])
            .expect("it fits in memory");
        let dir = tempfile::tempdir().expect("a temporary directory");
        trainer.finish(&|_| true).expect("enough text").save(dir.path()).expect("it can be written");
        let bytes = std::fs::read(dir.path().join("tokenizer.json")).expect("it was written");
        serde_json::from_slice(&bytes).expect("it is JSON")
    };
    Pattern::ALL.into_iter().map(of).collect()
});

fuzz_target!(
    init: {
        // The `tokenizers` crate panics on some files, which loading turns into an error; a panic that gets out still
        // ends the process.
        std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    },
    |data: &[u8]| {
        let Some((&first, rest)) = data.split_first() else { return };
        let bytes = match first {
            0..64 => rest.to_vec(),
            _ => {
                let mut choices = rest.iter().copied();
                let mut file = FILES[usize::from(first) % FILES.len()].clone();
                while let Some(kind) = choices.next() {
                    change(&mut file, kind, &mut choices);
                }
                file.to_string().into_bytes()
            }
        };
        match Tokenizer::from_json(&bytes, None) {
            Ok(tokenizer) => {
                exercise(&tokenizer);
                compare(&tokenizer, &bytes);
            }
            Err(error) => assert!(error.code == "TOKENIZER_INVALID" && !error.hint.is_empty(), "{error:?}"),
        }
    }
);

/// Everything that there is to do with a tokenizer.
fn exercise(tokenizer: &Tokenizer) {
    for text in TEXTS {
        for encode in [Tokenizer::encode, Tokenizer::encode_document] {
            let mut ids = Vec::new();
            match encode(tokenizer, text, &mut ids) {
                Ok(()) => {
                    tokenizer.decode(&ids, false);
                    tokenizer.decode(&ids, true);
                }
                Err(error) => assert_eq!(error.code, "TOKENIZER_INVALID"),
            }
        }
    }
    tokenizer.decode(&[0, 1, u32::MAX, 5], true);
    tokenizer.unreachable_tokens();
}

/// A changed file that our own encoder serves all the same has the ids that the `tokenizers` crate gives it.
fn compare(tokenizer: &Tokenizer, bytes: &[u8]) {
    if tokenizer.pattern().is_none() {
        return;
    }
    // What the crate does not load, it has no ids for.
    let Ok(Ok(mut theirs)) = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes)) else { return };
    if theirs.with_truncation(None).is_err() {
        return;
    }
    theirs.with_padding(None);
    for text in TEXTS {
        let mut ids = Vec::new();
        tokenizer.encode(text, &mut ids).expect("our own encoder has ids for every text");
        let encoding = theirs.encode_fast(*text, false).expect("so has the crate");
        assert_eq!(ids, encoding.get_ids(), "{text:?} with {}", String::from_utf8_lossy(bytes));
    }
}

/// One change: walks down to a place that the choices name, and puts something else there or takes it away.
fn change(file: &mut Value, kind: u8, choices: &mut impl Iterator<Item = u8>) {
    let mut place = file;
    for _ in 0..6 {
        let choice = usize::from(choices.next().unwrap_or(0));
        // Stop here: most places that matter are near the top.
        if choice % 5 == 4 {
            break;
        }
        let children = match place {
            Value::Object(fields) => fields.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        if children == 0 {
            break;
        }
        let at = choice / 5 % children;
        place = match place {
            Value::Object(fields) => fields.values_mut().nth(at).expect("there are that many"),
            Value::Array(items) => &mut items[at],
            _ => break,
        };
    }
    let choice = choices.next().unwrap_or(0);
    match (kind % 4, &mut *place) {
        (0, Value::Object(fields)) => {
            let key = fields.keys().nth(usize::from(choice) % fields.len().max(1)).cloned();
            key.map(|key| fields.remove(&key));
        }
        (0, Value::Array(items)) if !items.is_empty() => {
            drop(items.remove(usize::from(choice) % items.len()))
        }
        (1, Value::Object(fields)) => drop(fields.insert(text(choices), value(choice, choices))),
        (1, Value::Array(items)) => {
            items.push(items.first().cloned().unwrap_or_else(|| value(choice, choices)))
        }
        (2, Value::Array(items)) => items.reverse(),
        _ => *place = value(choice, choices),
    }
}

fn value(choice: u8, choices: &mut impl Iterator<Item = u8>) -> Value {
    match choice % 24 {
        0 => Value::Null,
        1 => true.into(),
        2 => false.into(),
        3 => 0.into(),
        4 => (-1).into(),
        5 => u32::MAX.into(),
        6 => (1u64 << 40).into(),
        7 => json!(1e300),
        8 => json!(0.5),
        9 => "".into(),
        10 => json!([]),
        11 => json!({}),
        12 => json!({"type": "NFC"}),
        13 => json!({"type": "Lowercase"}),
        14 => json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        15 => {
            json!({"type": "Split", "pattern": {"String": text(choices)}, "behavior": "Removed", "invert": true})
        }
        16 => {
            json!({"type": "Split", "pattern": {"Regex": text(choices)}, "behavior": "Isolated", "invert": false})
        }
        17 => json!({"id": choices.next(), "content": text(choices), "single_word": false, "lstrip": true,
            "rstrip": false, "normalized": true, "special": false}),
        18 => json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}]}),
        19 => {
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true})
        }
        20 => json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}),
        21 => json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b", -1.0]]}),
        22 => u16::from_le_bytes([choices.next().unwrap_or(0), choices.next().unwrap_or(0)]).into(),
        _ => text(choices).into(),
    }
}

/// A short text, up to the next byte of 255.
fn text(choices: &mut impl Iterator<Item = u8>) -> String {
    let bytes: Vec<u8> = choices.by_ref().take_while(|&byte| byte != 255).take(40).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
