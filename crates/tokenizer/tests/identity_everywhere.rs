//! Ids equal the `tokenizers` crate's wherever a border can lie, on every code point, and on whole data sets.
//!
//! `CANDLEWICK_LONG=1` tries all of it, which takes minutes; without it, a sample. `CANDLEWICK_DOCUMENTS` names flat
//! files of documents, separated by colons: each document after its length (u32, little endian).

mod peer;

use candlewick_tokenizer::Pattern;
use peer::{
    FILLERS, PIECES, Pair, Random, on_all_cores, pair, pairs, seed, text_with_border_at, trained, trained_on,
};

/// Past two blocks of 64 bytes.
const OFFSETS: usize = 131;

fn long() -> bool {
    std::env::var_os("CANDLEWICK_LONG").is_some_and(|value| value == "1")
}

fn one_a_pattern() -> Vec<Pair> {
    Pattern::ALL.into_iter().map(|pattern| pair(pattern.name(), &trained(pattern, 900))).collect()
}

/// Every piece at every offset, behind every filler and before every kind of text; without `CANDLEWICK_LONG`, two
/// pieces each. The text begins at an odd address at times, as a piece between special tokens does.
#[test]
fn ids_equal_the_crates_with_a_border_at_every_offset() {
    let seed = seed();
    let pairs = one_a_pattern();
    on_all_cores(&pairs, OFFSETS * FILLERS.len(), |pairs, chunk| {
        let (offset, filler) = (chunk / FILLERS.len(), FILLERS[chunk % FILLERS.len()]);
        let mut random = Random(Random(seed ^ chunk as u64).next());
        let borders = match long() {
            true => PIECES.to_vec(),
            false => vec![*random.pick(PIECES), *random.pick(PIECES)],
        };
        for border in borders {
            let after = format!("{}{} the end", random.pick::<&str>(PIECES), filler);
            let text = text_with_border_at(filler, offset, (border, &after));
            let shift = random.below(8);
            let shifted = "-".repeat(shift) + &text;
            for pair in pairs {
                pair.check(&shifted[shift..]);
                // The same border further on, where a block does not begin the text.
                if long() {
                    pair.check(&text.repeat(2));
                }
            }
        }
    });
}

/// Every code point in the places where its class decides; without `CANDLEWICK_LONG`, every 37th.
#[test]
fn ids_equal_the_crates_on_every_code_point() {
    let step = if long() { 1 } else { 37 };
    let all: Vec<char> = ('\0'..=char::MAX).step_by(step).collect();
    let chunks: Vec<&[char]> = all.chunks(64).collect();
    let pairs = one_a_pattern();
    on_all_cores(&pairs, chunks.len(), |pairs, chunk| {
        let mut text = String::new();
        for &c in chunks[chunk] {
            text.extend(format!("a{c}b {c}{c} 1{c}'{c}s  {c}\n{c}A").chars());
        }
        for pair in pairs {
            pair.check(&text);
        }
    });
}

/// A vocabulary a pattern is trained on the documents, then all of them are encoded.
#[test]
fn ids_equal_the_crates_on_the_documents_that_they_were_trained_on() {
    let (documents, vocab_size) = match std::env::var("CANDLEWICK_DOCUMENTS") {
        Ok(paths) => (paths.split(':').flat_map(peer::flat_file).collect(), 32_000),
        Err(_) => (peer::real_text(400_000), 3_000),
    };
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let chunks: Vec<&[&str]> = texts.chunks(64).collect();
    for pattern in Pattern::ALL {
        let pairs = [pair(pattern.name(), &trained_on(pattern, vocab_size, &texts))];
        on_all_cores(&pairs, chunks.len(), |pairs, chunk| {
            for text in chunks[chunk] {
                pairs[0].check(text);
            }
        });
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        println!("{pattern}: {} documents, {bytes} bytes", texts.len());
    }
}

/// Special tokens' spellings are in every vocabulary of `pairs`; what is between them is cut where they are.
#[test]
fn ids_equal_the_crates_between_special_tokens_at_every_offset() {
    let pairs = pairs();
    on_all_cores(&pairs, OFFSETS, |pairs, offset| {
        let token = "<|im_start|>";
        let text = format!("{token}{}'s{token} {}\r\n{token}", "a".repeat(offset), " ".repeat(offset % 7));
        for pair in pairs {
            pair.check(&text);
            pair.check(&format!("{} {token}user {text}", "\u{4e2d}".repeat(offset / 3)));
        }
    });
}
