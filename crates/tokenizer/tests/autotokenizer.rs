//! Saved tokenizers give the same ids in transformers' AutoTokenizer, in the `tokenizers` package and in tiktoken.
//!
//! `autotokenizer/ids.json` holds what those gave when it was written; where they can be imported, they are asked again.
//! To write it anew: `CANDLEWICK_WRITE_FIXTURE=1 cargo test -p candlewick-tokenizer --test autotokenizer`, with a
//! Python that has `transformers`, `tokenizers` and `tiktoken` named by `CANDLEWICK_PYTHON`.

mod peer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use serde_json::{Value, json};

const VARIED: &str = include_str!("varied.txt");
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_start|>user"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/autotokenizer")
}

fn train(pattern: Pattern) -> Tokenizer {
    let special_tokens = SPECIAL.map(str::to_owned).to_vec();
    let mut trainer =
        BpeTrainer::new(TrainOptions { vocab_size: 700, pattern, special_tokens, ..TrainOptions::default() })
            .unwrap();
    trainer.count(&[VARIED]).unwrap();
    trainer.finish(&|_| true).unwrap()
}

/// Texts on which libraries differ, and random ones that are always the same.
fn texts() -> Vec<String> {
    let mut random = peer::Random(20_261_124);
    let mut texts: Vec<String> = [
        "",
        " ",
        "\n",
        "Hello, world!  It's 12345 o'clock.\r\n\r\n\tDON'T 'S 's '\u{17f}",
        "a<|endoftext|>b <|im_start|>user x<|im_start|> <|im_start",
        "e\u{301} A\u{30a} \u{1112}\u{1161}\u{11ab} \u{fb01} \u{212b}",
        "\u{4e2d}\u{6587}\u{65e5}\u{672c}\u{8a9e} \u{d55c}\u{ad6d}\u{c5b4} \u{e44}\u{e17}\u{e22} \u{939}\u{93f}",
        "\u{1f469}\u{200d}\u{1f4bb}\u{1f1e9}\u{1f1ea} \u{85}\u{a0}\u{3000}x \u{2028}\u{feff}",
        "x   y\t\tz \n \n  end   ",
        "def f(x):\n    return x**2  # comment\n\n\nclass A: ...\n",
        "\u{0}\u{7f}\u{1b}",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("a".repeat(700));
    texts.extend(VARIED.lines().map(str::to_owned));
    texts.extend((0..60).map(|_| peer::random_text(&mut random, 12)).filter(|text| text.len() < 2000));
    texts
}

fn ours(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    let mut ids = Vec::new();
    let encode = if special { Tokenizer::encode } else { Tokenizer::encode_document };
    encode(tokenizer, text, &mut ids).unwrap();
    ids
}

/// Holds what the libraries gave for `texts` against ours.
fn check(found: &Value, texts: &[String]) {
    for pattern in Pattern::ALL {
        let tokenizer = train(pattern);
        let of = &found[pattern.name()];
        assert_eq!(of["eos"], "<|endoftext|>", "{pattern}");
        for (at, text) in texts.iter().enumerate() {
            let ids = ours(&tokenizer, text, true);
            assert_eq!(of["auto"][at], json!(ids), "AutoTokenizer, {pattern}: {text:?}");
            assert_eq!(of["tokenizers"][at], json!(ids), "tokenizers, {pattern}: {text:?}");
            assert_eq!(of["auto_decoded"][at], json!(tokenizer.decode(&ids, false)), "{pattern}: {text:?}");
            if of["tiktoken"] != Value::Null {
                let plain = ours(&tokenizer, text, false);
                assert_eq!(of["tiktoken"][at], json!(plain), "tiktoken, {pattern}: {text:?}");
            }
        }
    }
}

fn python() -> String {
    std::env::var("CANDLEWICK_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Asks the libraries; `None` where there are none.
fn ask(texts: &[String]) -> Option<Value> {
    let probe = Command::new(python()).args(["-c", "import tokenizers, transformers"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let directories = Pattern::ALL.map(|pattern| {
        let directory = dir.path().join(pattern.name());
        train(pattern).save(&directory).unwrap();
        directory
    });
    let mut child = Command::new(python())
        .arg(folder().join("ids.py"))
        .args(directories)
        .env("HF_HUB_OFFLINE", "1")
        .env("PYTHONIOENCODING", "utf-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(texts).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "ids.py failed");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn ids_are_those_that_the_libraries_gave() {
    let path = folder().join("ids.json");
    if std::env::var_os("CANDLEWICK_WRITE_FIXTURE").is_some() {
        let texts = texts();
        let found = ask(&texts).expect("a Python with transformers, tokenizers and tiktoken");
        assert!(found["gpt2"]["tiktoken"].is_array(), "tiktoken is missing");
        std::fs::write(&path, json!({"texts": texts, "found": found}).to_string() + "\n").unwrap();
    }
    let fixture: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let texts: Vec<String> = serde_json::from_value(fixture["texts"].clone()).unwrap();
    assert!(texts.len() > 80);
    check(&fixture["found"], &texts);
}

#[test]
fn ids_are_those_that_the_libraries_give_now() {
    let mut random = peer::Random(peer::seed());
    let mut texts = texts();
    texts.extend((0..100).map(|_| peer::random_text(&mut random, 16)));
    match ask(&texts) {
        Some(found) => check(&found, &texts),
        None => println!("not compared: {} has no transformers", python()),
    }
}
