//! Saved counts and stopped trainings: what goes on from them ends where an uninterrupted training does.

mod peer;

use std::fs;
use std::path::Path;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TokenizerError, TrainOptions};
use peer::{Random, real_text, seed};

fn options(vocab_size: usize) -> TrainOptions {
    TrainOptions { vocab_size, ..TrainOptions::default() }
}

fn trainer(options: TrainOptions, documents: &[String]) -> BpeTrainer {
    let mut trainer = BpeTrainer::new(options).unwrap();
    trainer.count(&documents.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    trainer
}

fn finish(trainer: BpeTrainer) -> Tokenizer {
    trainer.finish(&|_| true).unwrap()
}

fn loaded(options: TrainOptions, path: &Path) -> Result<BpeTrainer, TokenizerError> {
    let mut trainer = BpeTrainer::new(options)?;
    trainer.load_counts(path)?;
    Ok(trainer)
}

#[test]
fn saved_counts_train_any_size_and_go_on_with_more_documents() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first.bin"), dir.path().join("second.bin"));
    let documents = real_text(300_000);
    let (some, more) = documents.split_at(documents.len() / 3);
    let mut counting = trainer(options(300), some);
    counting.save_counts(&first).unwrap();
    let kept = finish(counting);
    assert_eq!(
        kept.digest(),
        finish(loaded(options(300), &first).unwrap()).digest(),
        "saving leaves the counts"
    );

    let mut going_on = loaded(options(1200), &first).unwrap();
    going_on.count(&more.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let whole = trainer(options(1200), &documents);
    assert_eq!((going_on.documents(), going_on.bytes()), (whole.documents(), whole.bytes()));
    going_on.save_counts(&second).unwrap();
    let expected = finish(whole);
    assert_eq!(finish(going_on).digest(), expected.digest());
    assert_eq!(finish(loaded(options(1200), &second).unwrap()).digest(), expected.digest());

    let again = dir.path().join("again.bin");
    let mut reversed: Vec<String> = documents.clone();
    reversed.reverse();
    trainer(options(300), &reversed).save_counts(&again).unwrap();
    assert!(fs::read(&again).unwrap() == fs::read(&second).unwrap(), "equal counts give equal files");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else is left");
}

#[test]
fn a_damaged_file_of_counts_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counts.bin");
    let documents = [
        "some words, and some more words".to_owned(),
        "a word of more than fifteen bytes: ".repeat(3) + &"x".repeat(300),
    ];
    trainer(options(257), &documents).save_counts(&path).unwrap();
    let sound = fs::read(&path).unwrap();
    let mut random = Random(seed());
    let mut trainer = trainer(options(260), &documents);
    let damaged = dir.path().join("damaged.bin");
    let mut refuse = |bytes: &[u8], what: &str| {
        fs::write(&damaged, bytes).unwrap();
        let error = trainer.load_counts(&damaged).expect_err(what);
        assert!(["CHECKPOINT_CORRUPT", "RESUME_MISMATCH"].contains(&error.code), "{what}: {error:?}");
        assert_eq!(trainer.documents(), 2, "{what}");
    };
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << random.below(8);
        refuse(&bytes, &format!("byte {at} of {} changed", sound.len()));
        refuse(&sound[..at], &format!("cut to {at} bytes"));
    }
    refuse(&[sound.as_slice(), b"x"].concat(), "a byte more");
    let clean = self::trainer(options(260), &documents);
    assert_eq!(finish(trainer).digest(), finish(clean).digest());
}

#[test]
fn counts_of_another_pattern_or_version_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("counts.bin");
    trainer(options(257), &["text".to_owned()]).save_counts(&path).unwrap();
    let error = loaded(TrainOptions { pattern: Pattern::O200k, ..options(257) }, &path).err().unwrap();
    assert_eq!(error.code, "RESUME_MISMATCH");
    assert!(error.message.contains("pattern gpt2, not o200k"), "{error}");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, bytes).unwrap();
    let error = loaded(options(257), &path).err().unwrap();
    assert!(error.code == "RESUME_MISMATCH" && error.message.contains("version 2"), "{error:?}");
    let error = loaded(options(257), &dir.path().join("none.bin")).err().unwrap();
    assert_eq!(error.code, "CONFIG_INVALID");
}

#[test]
fn a_training_that_was_killed_goes_on_from_its_last_commit() {
    let mut random = Random(seed());
    let documents = real_text(300_000);
    let expected = finish(trainer(options(900), &documents));
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let (mut kills, mut done) = (0, 0);
        let trained = loop {
            let mut trainer = BpeTrainer::new(options(900)).unwrap();
            let position = trainer.keep_in(dir.path()).unwrap();
            assert_eq!(position.as_deref().unwrap_or("0"), done.to_string());
            let mut at = done;
            while at < documents.len() {
                if random.below(documents.len() + 40) < 20 {
                    break;
                }
                trainer.count(&[&documents[at]]).unwrap();
                at += 1;
                if random.below(5) == 0 {
                    trainer.commit(&at.to_string()).unwrap();
                    done = at;
                }
            }
            if at == documents.len() {
                if random.below(2) == 0 {
                    break finish(trainer);
                }
                trainer.commit_last(&at.to_string()).unwrap();
                done = at;
                if random.below(2) == 0 {
                    break finish(trainer);
                }
            }
            kills += 1;
            // A kill leaves whatever was being written.
            fs::write(dir.path().join("words-999999.bin.part"), "half").unwrap();
            fs::write(dir.path().join("words-999998.bin"), "not committed").unwrap();
        };
        assert_eq!(trained.digest(), expected.digest(), "{kills} kills");
    }
}

#[test]
fn more_runs_than_may_be_open_are_merged_and_a_kill_finds_those_that_were_committed() {
    let documents = real_text(200_000);
    let expected = finish(trainer(options(600), &documents));
    let dir = tempfile::tempdir().unwrap();
    let mut killed = BpeTrainer::new(options(600)).unwrap();
    killed.keep_in(dir.path()).unwrap();
    let pieces: Vec<&str> = documents.iter().flat_map(|text| text.split_inclusive('\n')).collect();
    // The same text as documents of lines, so that there are many commits.
    let whole: Vec<String> = pieces.iter().map(|text| (*text).to_owned()).collect();
    let expected_lines = finish(trainer(options(600), &whole));
    assert_ne!(expected.digest(), expected_lines.digest(), "lines are other documents");
    let (first, second) = pieces.split_at(pieces.len() / 2);
    for lines in first.chunks(first.len() / 70) {
        killed.count(lines).unwrap();
        killed.commit("half").unwrap();
    }
    drop(killed);
    let files = fs::read_dir(dir.path()).unwrap().count();
    assert!(files < 40, "{files} files after more than 70 commits");
    let mut trainer = BpeTrainer::new(options(600)).unwrap();
    assert_eq!(trainer.keep_in(dir.path()).unwrap().as_deref(), Some("half"));
    trainer.count(second).unwrap();
    assert_eq!(finish(trainer).digest(), expected_lines.digest());
}

#[test]
fn training_goes_on_from_a_vocabulary_as_if_it_had_not_stopped() {
    let documents = real_text(400_000);
    let small = finish(trainer(options(1000), &documents));
    let mut trainer_on = trainer(options(2000), &documents);
    trainer_on.start_from(&small).unwrap();
    let grown = finish(trainer_on);
    let direct = finish(trainer(options(2000), &documents));
    assert_eq!(grown.digest(), direct.digest());

    let mut with_more = trainer(
        TrainOptions { special_tokens: vec!["<|endoftext|>".into(), "<|new|>".into()], ..options(1200) },
        &documents,
    );
    with_more.start_from(&small).unwrap();
    let with_more = finish(with_more);
    assert_eq!(with_more.token_bytes(1000), Some("<|new|>".as_bytes()), "it follows the old vocabulary");
    for id in 0..1000 {
        assert_eq!(with_more.token_bytes(id), small.token_bytes(id));
    }
}

#[test]
fn a_vocabulary_that_cannot_be_gone_on_from_is_refused() {
    let documents = real_text(50_000);
    let small = finish(trainer(options(500), &documents));
    let mut other = trainer(TrainOptions { pattern: Pattern::Cl100k, ..options(600) }, &documents);
    let error = other.start_from(&small).err().unwrap();
    assert_eq!(error.code, "TOKENIZER_MISMATCH");
    assert!(error.hint.contains("--pattern gpt2"), "{}", error.hint);
    let error = trainer(options(400), &documents).start_from(&small).err().unwrap();
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.hint.contains("500"), "{}", error.hint);
}
