//! What the trainer promises: the merges of the `tokenizers` crate, whatever the order of the documents.

mod peer;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TokenizerError, TrainOptions};
use peer::{Random, real_text, seed, tables};

fn train(documents: &[String], options: &TrainOptions) -> Result<Tokenizer, TokenizerError> {
    let mut trainer = BpeTrainer::new(options.clone())?;
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    trainer.count(&texts)?;
    trainer.finish(&|_| true)
}

fn tokenizer_json(tokenizer: &Tokenizer) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    std::fs::read(dir.path().join("tokenizer.json")).unwrap()
}

/// Rounds of a random test: `CANDLEWICK_ROUNDS`, or `default`.
fn rounds(default: usize) -> usize {
    std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Text with few distinct characters, so that many pairs are equally frequent.
fn tie_heavy(random: &mut Random) -> Vec<String> {
    let alphabets = ["ab", "abc", "aaab ", "abcd ", "01a ", "xyz\u{e9}\u{4e2d} ", "a'st \n", "abcdefghij "];
    let alphabet: Vec<char> = random.pick(&alphabets).chars().collect();
    let longest = *random.pick(&[5, 20, 60]);
    (0..1 + random.below(40))
        .map(|_| (0..1 + random.below(longest)).map(|_| *random.pick(&alphabet)).collect())
        .collect()
}

#[test]
fn merges_equal_the_crates_on_tie_heavy_corpora() {
    let mut random = Random(seed());
    let mut exhausted = 0;
    for round in 0..rounds(500) {
        let documents = tie_heavy(&mut random);
        let mut options = TrainOptions {
            vocab_size: 257 + random.below(80),
            pattern: *random.pick(&Pattern::ALL),
            min_frequency: random.below(3) as u64,
            max_token_length: [None, None, Some(2 + random.below(9))][random.below(3)],
            ..TrainOptions::default()
        };
        let mut expected = tables(peer::train(&documents, &options).as_bytes());
        let size = expected.0.as_object().unwrap().len();
        if size < options.vocab_size {
            // The crate gives a smaller vocabulary in silence; ours says how many tokens there are.
            let error = train(&documents, &options).err().unwrap();
            assert_eq!(error.code, "VOCAB_TOO_LARGE");
            assert!(error.message.contains(&format!("gives {size} tokens")), "{error}");
            options.vocab_size = size;
            expected = tables(peer::train(&documents, &options).as_bytes());
            exhausted += 1;
        }
        let ours = tables(&tokenizer_json(&train(&documents, &options).unwrap()));
        assert_eq!(ours.1, expected.1, "merges, round {round}: {options:?} {documents:?}");
        assert_eq!(ours.0, expected.0, "vocabulary, round {round}: {options:?} {documents:?}");
    }
    assert!(exhausted > 0, "no corpus was exhausted");
}

#[test]
fn merges_equal_the_crates_on_real_text() {
    let documents = real_text(1_500_000);
    for pattern in Pattern::ALL {
        let options = TrainOptions { vocab_size: 3000, pattern, ..TrainOptions::default() };
        let expected = tables(peer::train(&documents, &options).as_bytes());
        let ours = tables(&tokenizer_json(&train(&documents, &options).unwrap()));
        assert_eq!(ours, expected, "{pattern}");
    }
}

#[test]
fn neither_order_nor_grouping_nor_threads_nor_spilling_change_the_result() {
    let mut random = Random(seed());
    let documents = real_text(600_000);
    let options = TrainOptions { vocab_size: 1000, ..TrainOptions::default() };
    let expected = train(&documents, &options).unwrap();
    for threads in [1, 2, 8] {
        for memory_limit in [options.memory_limit, 3_500_000] {
            let mut shuffled: Vec<&str> = documents.iter().map(String::as_str).collect();
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, random.below(at + 1));
            }
            let spill = tempfile::tempdir().unwrap();
            let spill_dir = Some(spill.path().to_path_buf());
            let options = TrainOptions { memory_limit, spill_dir, ..options.clone() };
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let trained = pool.install(|| {
                let mut trainer = BpeTrainer::new(options.clone()).unwrap();
                for group in shuffled.chunks(1 + random.below(9)) {
                    trainer.count(group).unwrap();
                }
                assert_eq!(trainer.documents(), documents.len() as u64);
                let spilled = std::fs::read_dir(spill.path()).unwrap().count();
                assert_eq!(spilled > 0, memory_limit == 3_500_000, "{memory_limit}");
                trainer.finish(&|_| true).unwrap()
            });
            assert_eq!(trained.digest(), expected.digest(), "{threads} threads, {memory_limit} bytes");
            assert_eq!(manifest(&trained)["counts_digest"], manifest(&expected)["counts_digest"]);
            assert_eq!(std::fs::read_dir(spill.path()).unwrap().count(), 0, "what was spilled is gone");
        }
    }
}

fn manifest(tokenizer: &Tokenizer) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    serde_json::from_slice(&std::fs::read(dir.path().join("tokenizer_manifest.json")).unwrap()).unwrap()
}

#[test]
fn words_that_cannot_be_merged_within_the_memory_limit_are_an_error_and_none_is_dropped() {
    let options = TrainOptions { vocab_size: 500, memory_limit: 1 << 20, ..TrainOptions::default() };
    let error = train(&real_text(1_500_000), &options).err().unwrap();
    assert_eq!(error.code, "OUT_OF_MEMORY_HOST");
    assert!(error.hint.contains("--memory-limit"), "{}", error.hint);
    let error = BpeTrainer::new(TrainOptions { memory_limit: 1000, ..options }).err().unwrap();
    assert_eq!(error.code, "CONFIG_INVALID");
}

#[test]
fn spilled_counts_of_a_killed_training_are_removed_and_those_of_a_running_one_are_not() {
    let parent = tempfile::tempdir().unwrap();
    let killed = parent.path().join("candlewick-counts-1-0");
    std::fs::create_dir(&killed).unwrap();
    std::fs::write(killed.join("lock"), "").unwrap();
    std::fs::write(killed.join("words-000000.bin"), "half").unwrap();
    let documents = real_text(200_000);
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let start = || {
        let spill_dir = Some(parent.path().to_path_buf());
        let options =
            TrainOptions { vocab_size: 400, memory_limit: 1_500_000, spill_dir, ..Default::default() };
        let mut trainer = BpeTrainer::new(options).unwrap();
        trainer.count(&texts).unwrap();
        trainer
    };
    let (first, second) = (start(), start());
    assert!(!killed.exists());
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
    let digests = [first, second].map(|trainer| trainer.finish(&|_| true).unwrap().digest().to_owned());
    assert_eq!(digests[0], digests[1]);
    assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn special_tokens_come_first_and_the_first_known_spelling_ends_documents() {
    let special_tokens = ["<pad>", "</s>", "<|im_start|>"].map(str::to_owned).to_vec();
    let options = TrainOptions { vocab_size: 300, special_tokens, ..TrainOptions::default() };
    let trained = train(&real_text(20_000), &options).unwrap();
    assert_eq!(trained.token_bytes(0), Some("<pad>".as_bytes()));
    assert_eq!(trained.token_bytes(3), Some("!".as_bytes()), "the alphabet follows, by mapped character");
    assert_eq!(trained.eos_token().unwrap(), (1, "</s>"));
    assert_eq!(trained.vocab_size(), 300);
}

#[test]
fn a_vocabulary_without_room_for_the_bytes_is_refused() {
    let error = BpeTrainer::new(TrainOptions { vocab_size: 256, ..TrainOptions::default() }).err().unwrap();
    assert_eq!(error.code, "CONFIG_INVALID");
    assert!(error.hint.contains("257"), "{}", error.hint);
}

#[test]
fn documents_of_nothing_give_the_alphabet_and_nothing_more() {
    let documents = [String::new()];
    let alphabet = TrainOptions { vocab_size: 257, ..TrainOptions::default() };
    assert_eq!(train(&documents, &alphabet).unwrap().vocab_size(), 257);
    let error = train(&documents, &TrainOptions::default()).err().unwrap();
    assert_eq!(error.code, "VOCAB_TOO_LARGE");
    assert!(error.message.contains("257 tokens, not 32000"), "{error}");
    assert!(error.hint.contains("--vocab-size"), "{}", error.hint);
}

#[test]
fn progress_reaches_the_end_and_can_abort() {
    let mut trainer = BpeTrainer::new(TrainOptions { vocab_size: 600, ..TrainOptions::default() }).unwrap();
    let documents = real_text(50_000);
    trainer.count(&documents.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let seen = std::cell::Cell::new(0);
    trainer
        .finish(&|progress| {
            assert!(progress.tokens >= seen.get() && progress.vocab_size == 600 && progress.words > 0);
            seen.set(progress.tokens);
            true
        })
        .unwrap();
    assert_eq!(seen.get(), 600);

    let mut trainer = BpeTrainer::new(TrainOptions { vocab_size: 600, ..TrainOptions::default() }).unwrap();
    trainer.count(&documents.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let error = trainer.finish(&|progress| progress.tokens < 400).err().unwrap();
    assert_eq!(error.code, "ABORTED");
}
