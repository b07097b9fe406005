//! The `tokenizers` crate as the reference, and texts to compare on.
#![allow(dead_code, unused_imports, reason = "each test program uses its part")]

mod borders;
mod pair;
mod text;

use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) use borders::{FILLERS, text_with_border_at};
use candlewick_tokenizer::{Pattern, TrainOptions};
pub(crate) use pair::{Pair, VARIED, pair, pairs, trained, trained_on};
use serde_json::Value;
pub(crate) use text::{PIECES, Random, random_text, seed};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// The `pre_tokenizer` and `normalizer` JSON of a pattern, written here once more so that ours is checked.
pub(crate) fn parts(pattern: Pattern) -> (PreTokenizerWrapper, Option<NormalizerWrapper>) {
    if pattern == Pattern::Gpt2 {
        return (PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)), None);
    }
    let sequence = serde_json::json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern.regex()}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
    ]});
    let nfc = serde_json::json!({"type": "NFC"});
    let normalizer = (pattern == Pattern::Qwen2).then(|| serde_json::from_value(nfc).unwrap());
    (serde_json::from_value(sequence).unwrap(), normalizer)
}

/// Trains with the crate's trainer; returns its `tokenizer.json`.
pub(crate) fn train(documents: &[String], options: &TrainOptions) -> String {
    let special: Vec<AddedToken> =
        options.special_tokens.iter().map(|token| AddedToken::from(token.as_str(), true)).collect();
    let (pre_tokenizer, normalizer) = parts(options.pattern);
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .max_token_length(options.max_token_length)
        .special_tokens(special)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .show_progress(false)
        .build()
        .into();
    let mut tokenizer = Tokenizer::new(BPE::default());
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
    tokenizer.with_normalizer(normalizer).unwrap();
    tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
    tokenizer.train(&mut trainer, documents.iter()).unwrap();
    tokenizer.to_string(false).unwrap()
}

/// `model` of a `tokenizer.json`: (vocab, merges).
pub(crate) fn tables(tokenizer_json: &[u8]) -> (Value, Value) {
    let file: Value = serde_json::from_slice(tokenizer_json).unwrap();
    (file["model"]["vocab"].clone(), file["model"]["merges"].clone())
}

/// The documents of a flat file, each after its length (u32, little endian).
pub(crate) fn flat_file(path: &str) -> Vec<String> {
    let file = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut documents = Vec::new();
    let mut rest = file.as_slice();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (text, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        documents.push(String::from_utf8(text.to_vec()).unwrap());
        rest = after;
    }
    assert!(!documents.is_empty(), "{path} is empty");
    documents
}

/// About `bytes` bytes of real text: the sources of an installed Python, or made-up words where there is none.
pub(crate) fn real_text(bytes: usize) -> Vec<String> {
    let mut documents = Vec::new();
    let mut total = 0;
    let python = "import sysconfig; print(sysconfig.get_paths()['stdlib'])";
    let output = std::process::Command::new("python3").args(["-c", python]).output();
    let library = output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    let mut paths: Vec<_> = std::fs::read_dir(library.trim())
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    for path in paths {
        if total < bytes
            && path.extension().is_some_and(|extension| extension == "py")
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            total += text.len();
            documents.push(text);
        }
    }
    let mut random = Random(5);
    while total < bytes {
        let mut text = String::new();
        for _ in 0..500 {
            // Squaring favours small numbers, as words favour a few.
            let word = random.below(90) * random.below(90);
            text.push_str(&format!("{}{} ", ["un", "re", "", ""][word % 4], word * word));
        }
        total += text.len();
        documents.push(text);
    }
    documents
}

/// Calls `work` with each number below `chunks`, on all cores; every thread has copies of `pairs` of its own.
pub(crate) fn on_all_cores(pairs: &[Pair], chunks: usize, work: impl Fn(&[Pair], usize) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&chunk| chunk < chunks);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let pairs: Vec<Pair> = pairs.iter().map(Pair::fresh).collect();
                while let Some(chunk) = take() {
                    work(&pairs, chunk);
                }
            });
        }
    });
}
