//! Words cover the text, and nothing outside it is read: with a vocabulary of single bytes, ids are the text's bytes,
//! whatever the words are.
#![no_main]

use std::sync::LazyLock;

use candlewick_tokenizer::{BpeTrainer, Pattern, Tokenizer, TrainOptions};
use libfuzzer_sys::fuzz_target;

static TOKENIZERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let of = |pattern| {
        let options = TrainOptions { vocab_size: 257, pattern, ..TrainOptions::default() };
        let mut trainer = BpeTrainer::new(options).expect("the options are valid");
        trainer.count(&["a"]).expect("it fits in memory");
        trainer.finish(&|_| true).expect("an alphabet needs no text")
    };
    Pattern::ALL.into_iter().filter(|&pattern| pattern != Pattern::Qwen2).map(of).collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else { return };
    let tokenizer = &TOKENIZERS[usize::from(first) % TOKENIZERS.len()];
    // To the byte as large as the text, so that a read past its end is one past the allocation.
    let text = String::from_utf8_lossy(bytes).into_owned().into_boxed_str();
    let mut ids = Vec::new();
    tokenizer.encode_document(&text, &mut ids).expect("our own encoder has ids for every text");
    assert_eq!(ids.len(), text.len());
    assert_eq!(tokenizer.decode(&ids, false), *text);

    // What stands beyond the end of a piece must not matter: the piece alone has the same ids.
    let mut at = usize::from(first).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    for piece in [&text[..at], &text[at..]] {
        let alone = piece.to_owned().into_boxed_str();
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        tokenizer.encode(piece, &mut inside).expect("our own encoder has ids for every text");
        tokenizer.encode(&alone, &mut outside).expect("our own encoder has ids for every text");
        assert_eq!(inside, outside);
    }
});
