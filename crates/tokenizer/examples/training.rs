//! Trains on documents in memory and prints what each part took, as one JSON object a round.
//!
//! `cargo run --release -p candlewick-tokenizer --example training -- DOCUMENTS [VOCAB_SIZE] [THREADS] [ROUNDS]`
//! DOCUMENTS holds each document behind its length, four bytes, little endian.

use std::time::Instant;

use candlewick_tokenizer::{BpeTrainer, TrainOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments.get(1).ok_or("usage: training DOCUMENTS [VOCAB_SIZE] [THREADS] [ROUNDS]")?;
    let number = |at: usize, default| arguments.get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (vocab_size, threads, rounds) = (number(2, 32_000)?, number(3, 1)?, number(4, 3)?);
    let bytes = std::fs::read(path)?;
    let documents = documents(&bytes)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    for _ in 0..rounds {
        let start = Instant::now();
        let (counted, tokenizer) = pool.install(|| {
            let mut trainer = BpeTrainer::new(TrainOptions { vocab_size, ..TrainOptions::default() })?;
            trainer.count(&documents)?;
            let counted = start.elapsed().as_secs_f64();
            Ok::<_, candlewick_tokenizer::TokenizerError>((counted, trainer.finish(&|_| true)?))
        })?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{{\"threads\":{threads},\"count\":{counted:.3},\"merge\":{:.3},\"seconds\":{seconds:.3},\"digest\":{:?}}}",
            seconds - counted,
            tokenizer.digest()
        );
    }
    Ok(())
}

fn documents(mut bytes: &[u8]) -> Result<Vec<&str>, Box<dyn std::error::Error>> {
    let mut documents = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or("cut short")?;
        documents.push(std::str::from_utf8(text)?);
        bytes = rest;
    }
    Ok(documents)
}
