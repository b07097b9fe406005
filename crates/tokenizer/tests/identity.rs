//! Ids equal the `tokenizers` crate's, for every pattern, on the texts where splitters and mergers go wrong.
//!
//! `CANDLEWICK_ROUNDS` sets the number of random texts a tokenizer, `CANDLEWICK_SEED` repeats a run.

mod peer;

use candlewick_tokenizer::{Pattern, Tokenizer};
use peer::{Random, VARIED, on_all_cores, pair, pairs, seed, trained};
use serde_json::{Value, json};

/// Texts of one kind of tokenizer in a row.
const CHUNK: usize = 500;

/// `CANDLEWICK_ROUNDS` texts for each of the tokenizers; 100,100 in all by default.
#[test]
fn ids_equal_the_crates_on_random_text() {
    let seed = seed();
    let rounds: usize =
        std::env::var("CANDLEWICK_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(9100);
    let pairs = pairs();
    let chunks = rounds.div_ceil(CHUNK) * pairs.len();
    on_all_cores(&pairs, chunks, |pairs, chunk| {
        // What a chunk holds depends on its number alone, whichever thread takes it.
        let mut random = Random(Random(seed ^ chunk as u64).next());
        let pair = &pairs[chunk % pairs.len()];
        for _ in 0..CHUNK.min(rounds - chunk / pairs.len() * CHUNK) {
            pair.check(&pair.random_text(&mut random));
        }
    });
}

#[test]
fn ids_equal_the_crates_on_real_and_on_varied_text() {
    let mut documents = peer::real_text(200_000);
    documents.extend([VARIED.to_owned(), String::new(), VARIED.repeat(3), VARIED.replace('\n', "\r\n")]);
    documents.extend(VARIED.lines().map(str::to_owned));
    for pair in pairs() {
        for document in &documents {
            pair.check(document);
        }
    }
}

#[test]
fn ids_equal_the_crates_on_words_past_every_border() {
    for pair in pairs() {
        for length in [14, 15, 16, 17, 47, 48, 49, 63, 64, 65, 255, 256, 257, 1000, 16_384, 16_385, 100_000] {
            pair.check(&"a".repeat(length));
            pair.check(&format!("x{} ", " ".repeat(length)));
            pair.check(&"\u{4e2d}\u{6587}ab=".repeat(length / 3));
            pair.check(&"the=quick,".repeat(length / 5).replace(['=', ','], ""));
        }
    }
}

#[test]
fn ids_equal_the_crates_on_words_longer_than_a_window() {
    let mut random = Random(seed());
    let letters: Vec<char> = VARIED.chars().filter(|c| c.is_alphabetic()).collect();
    for pair in pairs() {
        for _ in 0..3 {
            let length = 17_000 + random.below(30_000);
            let start = random.below(letters.len());
            pair.check(&letters.iter().cycle().skip(start).take(length).collect::<String>());
            let few = 2 + random.below(60);
            pair.check(
                &(0..length).map(|_| letters[random.below(few.min(letters.len()))]).collect::<String>(),
            );
        }
    }
}

#[test]
fn every_token_of_a_trained_vocabulary_encodes_to_itself() {
    for pattern in Pattern::ALL {
        let trained = pair(pattern.name(), &trained(pattern, 900));
        assert_eq!(trained.ours.unreachable_tokens(), Some(vec![]), "{pattern}");
    }
    let mut file = trained(Pattern::Gpt2, 900);
    file["model"]["vocab"]["unheard"] = 900.into();
    assert_eq!(pair("one token more", &file).ours.unreachable_tokens(), Some(vec![900]));
}

#[test]
fn long_words_take_linear_time() {
    let in_order = trained(Pattern::Gpt2, 900);
    let mut reversed = in_order.clone();
    reversed["model"]["merges"].as_array_mut().unwrap().reverse();
    for file in [in_order, reversed] {
        let tokenizer = Tokenizer::from_json(&serde_json::to_vec(&file).unwrap(), None).unwrap();
        let seconds = |length: usize| {
            let text = "ab".repeat(length / 2);
            let start = std::time::Instant::now();
            let mut ids = Vec::new();
            tokenizer.encode_document(&text, &mut ids).unwrap();
            assert_eq!(tokenizer.decode(&ids, false), text);
            start.elapsed().as_secs_f64()
        };
        let (short, long) = (seconds(50_000), seconds(800_000));
        // Sixteen times the text: quadratic time would be 256 times as long.
        assert!(long < 100.0 * short.max(0.005), "{short} s, then {long} s");
    }
}

#[test]
fn files_outside_the_registry_are_served_by_the_crate() {
    let other = |change: &dyn Fn(&mut Value)| {
        let mut file = trained(Pattern::Gpt2, 400);
        change(&mut file);
        let bytes = serde_json::to_vec(&file).unwrap();
        let ours = Tokenizer::from_json(&bytes, None).unwrap();
        assert_eq!(ours.pattern(), None);
        let theirs = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
        for text in [VARIED, "a <|endoftext|> b", ""] {
            let mut ids = Vec::new();
            ours.encode(text, &mut ids).unwrap();
            assert_eq!(ids, theirs.encode_fast(text, false).unwrap().get_ids());
        }
    };
    other(&|file| file["pre_tokenizer"]["add_prefix_space"] = true.into());
    other(&|file| file["normalizer"] = json!({"type": "Lowercase"}));
    other(&|file| {
        file["model"]["unk_token"] = "".into();
        file["pre_tokenizer"]["add_prefix_space"] = true.into();
    });
    other(&|file| file["added_tokens"][0]["lstrip"] = true.into());
    other(&|file| file["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token != "\u{100}"));
    other(&|file| {
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]});
    });
}
