//! Ids equal the `tokenizers` crate's and decode to the text, for every pattern and for what loaded files may carry.
#![no_main]

#[path = "../../crates/tokenizer/tests/peer/mod.rs"]
mod peer;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use peer::{Pair, pairs};

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(pairs);

/// The crate is slow, and slower still under a sanitizer.
const COMPARED: usize = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let pair = &PAIRS[usize::from(first) % PAIRS.len()];
    let text = String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    if text.len() <= COMPARED {
        pair.check(&text);
    }
    // Words that a cache holds, and a text that begins elsewhere, change nothing.
    let (mut once, mut again) = (Vec::new(), Vec::new());
    let of = |text: &str, ids: &mut Vec<u32>| pair.ours.encode(text, ids).expect("ids for every text");
    of(&text, &mut once);
    of(&format!("-{text}")[1..], &mut again);
    assert_eq!(once, again);
    let mut decoder = pair.ours.stream_decoder(false);
    let mut streamed: String = once.iter().map(|&id| decoder.push(id)).collect();
    streamed += &decoder.finish();
    assert_eq!(streamed, pair.ours.decode(&once, false));
});
