//! A file of word counts is taken or refused with a code; what is taken is written again as it was, and trains.
//!
//! The first byte chooses: the rest is the file itself, or the records of one whose head and checksum are sound.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use candlewick_tokenizer::{BpeTrainer, TrainOptions};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// A folder of this process. It is not deleted when the process is killed by a finding.
static FOLDER: LazyLock<PathBuf> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary directory").keep());

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let bytes = if first < 64 { rest.to_vec() } else { sealed(rest) };
    let path = FOLDER.join("given");
    std::fs::write(&path, bytes).expect("the file can be written");
    let mut trainer = trainer();
    if let Err(error) = trainer.load_counts(&path) {
        assert!(["CHECKPOINT_CORRUPT", "RESUME_MISMATCH"].contains(&error.code), "{error:?}");
        return;
    }
    let (once, again) = (FOLDER.join("once"), FOLDER.join("again"));
    trainer.save_counts(&once).expect("counts can be saved");
    let mut second = self::trainer();
    second.load_counts(&once).expect("what was saved loads");
    second.save_counts(&again).expect("counts can be saved");
    assert_eq!(std::fs::read(once).expect("it is there"), std::fs::read(again).expect("it is there"));
    if let Err(error) = trainer.finish(&|_| true) {
        assert_eq!(error.code, "VOCAB_TOO_LARGE");
    }
});

fn trainer() -> BpeTrainer {
    let options = TrainOptions { vocab_size: 262, ..TrainOptions::default() };
    BpeTrainer::new(options).expect("the options are valid")
}

/// A file with these records.
fn sealed(records: &[u8]) -> Vec<u8> {
    let about = br#"{"pattern":"gpt2","unicode":"16.0.0","documents":3,"bytes":40}"#;
    let mut bytes = b"CWKWORDS".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(about.len() as u32).to_le_bytes());
    bytes.extend_from_slice(about);
    bytes.extend_from_slice(records);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}
