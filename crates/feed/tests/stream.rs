//! The stream of tokens against the order rule written a second time, over random datasets.

mod support;

use candlewick_feed::{
    BatchShape, Feed, FeedOptions, HeldOutEnd, IGNORED, OnExhausted, OrderKind, Place, SourceOptions,
    StreamState,
};
use support::*;

const SEEDS: std::ops::Range<u64> = 0..40;

#[test]
fn every_document_comes_once_in_the_order_of_the_rule() {
    let tokenizer = bytes_tokenizer();
    for seed in SEEDS {
        println!("seed {seed}");
        let random = &mut Random(seed);
        let dataset = Dataset::random(random, seed % 2 == 0);
        let window = 1 + random.below(40);
        let mut options = options(vec![source(&dataset)], window, 1 + random.below(3), 1 + random.below(30));
        options.epochs = Some(1 + random.below(3) as u64);
        options.batch_size = 1 + random.below(50);
        options.threads = 1 + random.below(3);
        let tokens = stream(&run(&[&dataset], &options, &tokenizer, usize::MAX));
        let expected: Vec<_> = (1..=options.epochs.unwrap())
            .flat_map(|e| dataset.in_training_order(7, e, window, None))
            .collect();
        assert_eq!(documents(&tokenizer, &tokens), expected, "seed {seed}");
    }
}

#[test]
fn neither_frames_nor_threads_change_batches_states_or_hashes() {
    let tokenizer = bytes_tokenizer();
    for seed in SEEDS {
        let random = &mut Random(seed ^ 0xabc);
        let dataset = Dataset::random(random, seed % 2 == 0);
        let mut options = options(vec![source(&dataset)], 1 + random.below(100), 2, 17);
        options.epochs = Some(2);
        let first = run(&[&dataset], &options, &tokenizer, usize::MAX);
        (options.batch_size, options.threads) = (37, 1);
        assert!(run(&[&dataset], &options, &tokenizer, usize::MAX) == first, "seed {seed}");
    }
}

#[test]
fn going_on_from_any_state_gives_the_rest_and_so_does_going_on_from_that() {
    let tokenizer = bytes_tokenizer();
    for seed in SEEDS {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0x5eed);
        let dataset = Dataset::random(random, seed % 2 == 0);
        let mut options =
            options(vec![source(&dataset)], 1 + random.below(60), 1 + random.below(3), 1 + random.below(40));
        options.epochs = Some(1 + random.below(3) as u64);
        let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
        let mut done = 0;
        while done < all.len() {
            let count = 1 + random.below(all.len() - done);
            options.state = (done > 0).then(|| all[done - 1].1.clone());
            assert!(
                run(&[&dataset], &options, &tokenizer, count) == all[done..done + count],
                "seed {seed} at {done}"
            );
            done += count;
        }
        options.state = all.last().map(|(_, state)| state.clone());
        assert!(
            run(&[&dataset], &options, &tokenizer, usize::MAX).is_empty(),
            "seed {seed}: nothing is left"
        );
    }
}

#[test]
fn raising_max_samples_goes_on_where_the_shorter_run_ended() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(3), true);
    let mut options = options(vec![source(&dataset)], 20, 1, 8);
    options.max_samples = Some(25);
    let short = run(&[&dataset], &options, &tokenizer, usize::MAX);
    let short_documents = documents(&tokenizer, &stream(&short));
    assert_eq!(short_documents.len(), 25);
    options.max_samples = Some(60);
    let whole = documents(&tokenizer, &stream(&run(&[&dataset], &options, &tokenizer, usize::MAX)));
    options.state = Some(short.last().unwrap().1.clone());
    let rest = run(&[&dataset], &options, &tokenizer, usize::MAX);
    // The rest begins with the end-of-text that ended the short run, now an input.
    let rest = documents(&tokenizer, &stream(&rest)[1..]);
    assert_eq!([short_documents, rest].concat(), whole);
}

#[test]
fn the_state_counts_targets_documents_and_epochs_and_hashes_the_targets() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(5), true);
    let mut options = options(vec![source(&dataset)], 30, 2, 11);
    options.epochs = Some(2);
    let (mut tokens, mut ends, mut hash) = (0, 0, 0xcbf29ce484222325_u64);
    let end_of_text = tokenizer.eos_token().unwrap().0;
    let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
    for (batch, state) in &all {
        for &target in batch.targets.iter().filter(|&&t| t != IGNORED) {
            tokens += 1;
            ends += u64::from(target == end_of_text);
            hash = (hash ^ u64::from(target)).wrapping_mul(0x100000001b3);
        }
        let state: StreamState = serde_json::from_str(state).unwrap();
        assert_eq!((state.tokens, state.documents, state.hash), (tokens, ends, format!("{hash:016x}")));
    }
    let state: StreamState = serde_json::from_str(&all.last().unwrap().1).unwrap();
    assert_eq!(state.sources[0].epoch(), 2);
    let last = &all.last().unwrap().0;
    let counted = last.counted as usize;
    assert!(last.targets[counted..].iter().all(|&t| t == IGNORED));
    assert!(last.inputs[counted..].iter().all(|&t| t == end_of_text), "what is surplus is end-of-text");
}

#[test]
fn ranks_together_see_the_batches_of_one() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(6), true);
    let alone = run(&[&dataset], &options(vec![source(&dataset)], 25, 4, 9), &tokenizer, usize::MAX);
    for world_size in [2, 4] {
        let parts: Vec<_> = (0..world_size)
            .map(|rank| {
                let mut options = options(vec![source(&dataset)], 25, 4, 9);
                options.batches = Some(BatchShape { rows: 4, sequence_length: 9, rank, world_size });
                run(&[&dataset], &options, &tokenizer, usize::MAX)
            })
            .collect();
        for (i, (batch, state)) in alone.iter().enumerate() {
            let inputs: Vec<u32> = parts.iter().flat_map(|p| p[i].0.inputs.clone()).collect();
            let targets: Vec<u32> = parts.iter().flat_map(|p| p[i].0.targets.clone()).collect();
            assert_eq!((&inputs, &targets), (&batch.inputs, &batch.targets));
            assert_eq!(parts.iter().map(|p| p[i].0.counted).sum::<u64>(), batch.counted);
            assert!(parts.iter().all(|p| p[i].1 == *state), "the state is the global stream's");
        }
    }
}

#[test]
fn a_mixture_keeps_its_order_over_resumes() {
    let tokenizer = bytes_tokenizer();
    for seed in SEEDS {
        let random = &mut Random(seed ^ 0x313);
        let datasets: Vec<_> =
            (0..2 + random.below(3)).map(|i| Dataset::random(random, i % 2 == 0)).collect();
        let sources = datasets
            .iter()
            .map(|d| {
                let mut source = source(d);
                source.weight = 1.0 + random.below(4) as f64;
                source.on_exhausted =
                    [OnExhausted::Drop, OnExhausted::Stop, OnExhausted::Drop][random.below(3)];
                source
            })
            .collect();
        let mut options = options(sources, 1 + random.below(50), 2, 1 + random.below(40));
        let datasets: Vec<_> = datasets.iter().collect();
        let all = run(&datasets, &options, &tokenizer, usize::MAX);
        let mut done = 0;
        while done < all.len() {
            let count = 1 + random.below(all.len() - done);
            options.state = (done > 0).then(|| all[done - 1].1.clone());
            assert!(
                run(&datasets, &options, &tokenizer, count) == all[done..done + count],
                "seed {seed} at {done}"
            );
            done += count;
        }
    }
}

#[test]
fn held_out_documents_are_never_trained_on() {
    let tokenizer = bytes_tokenizer();
    for seed in SEEDS {
        let dataset = Dataset::random(&mut Random(seed ^ 0x77), seed % 2 == 0);
        let all = dataset.in_file_order();
        let count = all.len() / 20;
        if count == 0 {
            continue;
        }
        let ((file, group, row), _) = all[count - 1];
        let end = HeldOutEnd { file, group, row, documents: count as u64 };
        let mut source = source(&dataset);
        source.held_out = Some(end);
        let options = options(vec![source], 50, 1, 16);
        let tokens = stream(&run(&[&dataset], &options, &tokenizer, usize::MAX));
        assert_eq!(
            documents(&tokenizer, &tokens),
            dataset.in_training_order(7, 1, 50, Some(end)),
            "seed {seed}"
        );
    }
}

#[test]
fn a_feed_of_documents_gives_file_order() {
    for seed in SEEDS {
        let dataset = Dataset::random(&mut Random(seed ^ 0x99), seed % 2 == 0);
        let options =
            FeedOptions { order: OrderKind::File, batches: None, ..options(vec![source(&dataset)], 1, 1, 1) };
        let streamer = Streamer::start(&dataset, 13);
        let (feed, mut documents) = Feed::documents(&options, std::slice::from_ref(&streamer.link)).unwrap();
        let mut all = Vec::new();
        while let Some(document) = documents.next_document().unwrap() {
            all.push((document.place(), String::from_utf8(document.bytes().to_vec()).unwrap()));
        }
        drop(documents);
        drop(feed);
        assert!(all == dataset.in_file_order(), "seed {seed}");
    }
}

#[test]
fn a_feed_of_documents_goes_on_behind_any_row() {
    for seed in SEEDS {
        let mut random = Random(seed ^ 0x51);
        let dataset = Dataset::random(&mut random, seed % 2 == 0);
        let expected = dataset.in_file_order();
        if expected.is_empty() {
            continue;
        }
        for at in [0, random.below(expected.len()), random.below(expected.len()), expected.len() - 1] {
            let (file, group, row) = expected[at].0;
            let source = SourceOptions { after: Some(Place { file, group, row }), ..source(&dataset) };
            let options =
                FeedOptions { order: OrderKind::File, batches: None, ..options(vec![source], 1, 1, 1) };
            let streamer = Streamer::start(&dataset, 13);
            let (feed, mut documents) =
                Feed::documents(&options, std::slice::from_ref(&streamer.link)).unwrap();
            let mut rest = Vec::new();
            while let Some(document) = documents.next_document().unwrap() {
                rest.push((document.place(), String::from_utf8(document.bytes().to_vec()).unwrap()));
            }
            drop(documents);
            drop(feed);
            assert!(rest == expected[at + 1..], "seed {seed}, after {:?}", expected[at].0);
        }
    }
}

#[test]
fn a_feed_of_documents_in_the_order_of_training_gives_every_window() {
    for seed in SEEDS {
        let dataset = Dataset::random(&mut Random(seed ^ 0x1234), seed % 2 == 0);
        let options = FeedOptions { batches: None, ..options(vec![source(&dataset)], 20, 1, 1) };
        let streamer = Streamer::start(&dataset, 13);
        let (feed, mut documents) = Feed::documents(&options, std::slice::from_ref(&streamer.link)).unwrap();
        let mut all = Vec::new();
        while let Some(document) = documents.next_document().unwrap() {
            all.push(String::from_utf8(document.bytes().to_vec()).unwrap());
        }
        drop(documents);
        drop(feed);
        assert!(all == dataset.in_training_order(7, 1, 20, None), "seed {seed}");
    }
}
