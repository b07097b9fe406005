//! Encodes text with this crate and with the `tokenizers` crate, one thread, and prints MB/s.
//!
//! `cargo run --release -p candlewick-tokenizer --example throughput -- TEXT_FILE [PATTERN] [VOCAB_SIZE] [OUTPUT]`
//! The tokenizer is trained on the text first; with OUTPUT, it is saved there. `CANDLEWICK_NO_PEER=1` leaves the
//! slow crate out.

use std::path::Path;
use std::time::Instant;

use candlewick_tokenizer::{BpeTrainer, Pattern, TrainOptions};

/// Bytes of one document, about that of a web page.
const DOCUMENT: usize = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("usage: throughput TEXT_FILE [PATTERN] [VOCAB_SIZE] [OUTPUT]")?;
    let pattern = arguments.get(2).map_or(Ok(Pattern::Gpt2), |name| name.parse::<Pattern>())?;
    let vocab_size = arguments.get(3).map_or(Ok(32_000), |size| size.parse())?;
    let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
    let documents = cut(&text);
    let megabytes = text.len() as f64 / 1e6;
    println!("{megabytes:.1} MB, {} documents, {pattern}", documents.len());

    let start = Instant::now();
    let mut trainer = BpeTrainer::new(TrainOptions { vocab_size, pattern, ..TrainOptions::default() })?;
    trainer.count(&documents)?;
    let counted = start.elapsed().as_secs_f64();
    let tokenizer = trainer.finish(&|_| true)?;
    let trained = start.elapsed().as_secs_f64();
    println!("train: count {counted:.2} s, merges {:.2} s", trained - counted);
    if let Some(output) = arguments.get(4) {
        tokenizer.save(Path::new(output))?;
    }

    let mut ours = Vec::new();
    for pass in 1..=3 {
        ours.clear();
        let start = Instant::now();
        for document in &documents {
            tokenizer.encode_document(document, &mut ours).expect("our own encoder has ids for every text");
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("candlewick, pass {pass}: {:.1} MB/s, {} ids", megabytes / seconds, ours.len());
    }

    if std::env::var_os("CANDLEWICK_NO_PEER").is_some() {
        return Ok(());
    }
    let dir = std::env::temp_dir().join(format!("candlewick-throughput-{}", std::process::id()));
    tokenizer.save(&dir)?;
    let loaded = tokenizers::Tokenizer::from_file(dir.join("tokenizer.json"));
    std::fs::remove_dir_all(&dir)?;
    let mut peer = loaded.map_err(|error| error.to_string())?;
    peer.set_encode_special_tokens(true);
    let mut theirs = Vec::new();
    let start = Instant::now();
    for document in &documents {
        let encoding = peer.encode_fast(*document, false).map_err(|error| error.to_string())?;
        theirs.extend_from_slice(encoding.get_ids());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("tokenizers crate: {:.1} MB/s, {} ids", megabytes / seconds, theirs.len());
    println!("ids {}", if ours == theirs { "identical" } else { "DIFFER" });
    Ok(())
}

fn cut(text: &str) -> Vec<&str> {
    let (mut documents, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut at = DOCUMENT.min(rest.len());
        while !rest.is_char_boundary(at) {
            at += 1;
        }
        documents.push(&rest[..at]);
        rest = &rest[at..];
    }
    documents
}
