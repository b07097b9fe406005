//! Batches that are left out, and where the documents of a batch come from.

mod support;

use std::collections::HashMap;

use candlewick_feed::{Batch, Feed, Next, StreamState};
use support::*;

/// Up to five ranges of batches after `from`, in any order, some of them past the end of the stream.
fn ranges(random: &mut Random, from: usize, batches: usize) -> Vec<[u64; 2]> {
    (0..random.below(6))
        .map(|_| {
            let first = from + 1 + random.below(batches.saturating_sub(from) + 2);
            [first as u64, (first + random.below(6)) as u64]
        })
        .collect()
}

fn is_left_out(skip: &[[u64; 2]], batch: usize) -> bool {
    skip.iter().any(|[first, last]| (*first..=*last).contains(&(batch as u64)))
}

fn state(json: &str) -> StreamState {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_stream_with_batches_left_out_is_the_stream_without_them_over_any_resume() {
    let tokenizer = bytes_tokenizer();
    for seed in 0..60 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0x5c1b);
        let dataset = Dataset::random(random, seed % 2 == 0);
        let mut options =
            options(vec![source(&dataset)], 1 + random.below(60), 1 + random.below(3), 8 + random.below(60));
        options.epochs = Some(1 + random.below(2) as u64);
        let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
        // What the reader stands after, and what it is to have left out before.
        let mut done = 0;
        options.skip = ranges(random, 0, all.len());
        loop {
            let expected: Vec<_> =
                (done..all.len()).filter(|&i| !is_left_out(&options.skip, i + 1)).collect();
            let count = 1 + random.below(expected.len().max(1));
            let got = run(&[&dataset], &options, &tokenizer, count);
            assert_eq!(got.len(), count.min(expected.len()), "seed {seed} after {done}");
            for ((batch, json), &i) in got.iter().zip(&expected) {
                assert!(*batch == all[i].0, "seed {seed}: batch {}", i + 1);
                let (mut now, whole) = (state(json), state(&all[i].1));
                let skipped: Vec<_> =
                    now.skipped.iter().flat_map(|[first, last]| *first as usize..=*last as usize).collect();
                let due: Vec<_> = (1..=i + 1).filter(|&n| is_left_out(&options.skip, n)).collect();
                assert_eq!(skipped, due, "seed {seed}: what was left out before batch {}", i + 1);
                now.skipped.clear();
                assert_eq!(now, whole, "what was left out counts as consumed");
                assert_eq!(now.batches as usize, i + 1);
            }
            let Some(&last) = expected.get(count.wrapping_sub(1)) else { break };
            done = last + 1;
            options.state = Some(got.last().unwrap().1.clone());
            // Later ranges may be added, or taken back.
            options.skip.retain(|range| range[0] as usize <= done);
            options.skip.extend(ranges(random, done, all.len()));
        }
    }
}

#[test]
fn ranges_that_contradict_what_was_consumed_are_refused() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(3), true);
    let mut options = options(vec![source(&dataset)], 20, 1, 16);
    options.skip = vec![[3, 4]];
    let after_6 = run(&[&dataset], &options, &tokenizer, 4).pop().unwrap().1;
    assert_eq!((state(&after_6).batches, state(&after_6).skipped), (6, vec![[3, 4]]));
    options.state = Some(after_6);
    let streamer = Streamer::start(&dataset, 10);
    let mut refused = |skip: &[[u64; 2]]| {
        options.skip = skip.to_vec();
        Feed::batches(&options, std::slice::from_ref(&streamer.link), &tokenizer)
            .err()
            .map(|error| (error.code, error.message))
    };
    assert_eq!(refused(&[[3, 4]]), None);
    assert_eq!(refused(&[[4, 4], [3, 3], [7, 9]]), None);
    let mismatch = |skip: &[[u64; 2]], refused: Option<(String, String)>, words: &str| {
        let (code, message) = refused.unwrap_or_else(|| panic!("{skip:?} was taken"));
        assert_eq!(code, "RESUME_MISMATCH");
        assert!(message.contains(words), "{message}");
    };
    for (skip, words) in [
        (&[][..], "left out batches 3:4"),
        (&[[3, 3]], "left out batches 4:4"),
        (&[[3, 9]], "batches 5:6, but the run has trained on them"),
        (&[[2, 4]], "batches 2:2, but"),
        (&[[3, 4], [6, 8]], "batches 6:6, but"),
    ] {
        let outcome = refused(skip);
        mismatch(skip, outcome, words);
    }
    assert_eq!(refused(&[[0, 4]]).unwrap().0, "CONFIG_INVALID");
}

#[test]
fn a_state_of_version_1_stands_after_as_many_batches_as_its_targets_fill() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(4), true);
    let mut options = options(vec![source(&dataset)], 20, 2, 16);
    let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
    for at in [5, all.len()] {
        let mut old: serde_json::Value = serde_json::from_str(&all[at - 1].1).unwrap();
        old["version"] = 1.into();
        old.as_object_mut().unwrap().retain(|key, _| key != "batches" && key != "skipped");
        options.state = Some(old.to_string());
        options.skip = vec![[at as u64 + 2, at as u64 + 3]];
        let rest = run(&[&dataset], &options, &tokenizer, usize::MAX);
        let expected: Vec<_> = (at..all.len()).filter(|&i| !is_left_out(&options.skip, i + 1)).collect();
        assert!(rest.iter().map(|(batch, _)| batch).eq(expected.iter().map(|&i| &all[i].0)));
    }
}

#[test]
fn a_batch_that_is_ready_is_not_waited_for() {
    let dataset = Dataset::random(&mut Random(5), true);
    let options = options(vec![source(&dataset)], 20, 1, 8);
    let streamer = Streamer::start(&dataset, 10);
    let (_feed, mut reader) =
        Feed::batches(&options, std::slice::from_ref(&streamer.link), &bytes_tokenizer()).unwrap();
    while !reader.is_ready() {
        std::thread::yield_now();
    }
    let (mut batch, mut ready, mut waited) = (Batch::default(), true, reader.waited());
    while reader.next(&mut batch, &mut |_| ()).unwrap() == Next::Filled {
        assert!(!ready || reader.waited() == waited);
        (ready, waited) = (reader.is_ready(), reader.waited());
    }
    assert!(!reader.is_ready(), "at the end");
}

#[test]
fn an_interrupt_ends_the_skipping_and_the_next_call_goes_on() {
    let tokenizer = bytes_tokenizer();
    let dataset = Dataset::random(&mut Random(5), true);
    let mut options = options(vec![source(&dataset)], 20, 1, 8);
    let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
    options.skip = vec![[2, 30]];
    let streamer = Streamer::start(&dataset, 10);
    let (_feed, mut reader) =
        Feed::batches(&options, std::slice::from_ref(&streamer.link), &tokenizer).unwrap();
    let mut batch = Batch::default();
    assert_eq!(reader.next(&mut batch, &mut |_| ()).unwrap(), Next::Filled);
    let interrupt = reader.interrupt();
    interrupt.raise();
    let mut left_out = 0;
    while reader.next(&mut batch, &mut |_| ()).unwrap() == Next::Interrupted {
        let now = reader.left_out().batches;
        assert!(now - left_out <= 1, "each batch that is left out looks at it");
        left_out = now;
        std::thread::yield_now();
    }
    assert!(batch == all[30].0);
    assert_eq!(reader.left_out().batches, 29);
    let (before, after) = (state(&all[0].1), state(&all[29].1));
    assert_eq!(reader.left_out().tokens, after.tokens - before.tokens);
    assert_eq!(reader.left_out().documents, after.documents - before.documents);
}

#[test]
fn spans_name_the_documents_of_a_batch_and_cover_its_inputs() {
    let tokenizer = bytes_tokenizer();
    let end_of_text = tokenizer.eos_token().unwrap().0;
    for seed in 0..20 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0xb10c);
        let dataset = Dataset::random(random, seed % 2 == 0);
        let texts: HashMap<_, _> = dataset.in_file_order().into_iter().collect();
        let mut options =
            options(vec![source(&dataset)], 1 + random.below(60), 1 + random.below(3), 8 + random.below(60));
        let all = run(&[&dataset], &options, &tokenizer, usize::MAX);
        let from = random.below(all.len());
        options.state = (from > 0).then(|| all[from - 1].1.clone());
        let skipped = from as u64 + 2;
        options.skip = vec![[skipped, skipped]];
        let streamer = Streamer::start(&dataset, 10);
        let (_feed, mut reader) =
            Feed::batches(&options, std::slice::from_ref(&streamer.link), &tokenizer).unwrap();
        let mut batch = Batch::default();
        while reader.next(&mut batch, &mut |_| ()).unwrap() == Next::Filled {
            let mut at = 0;
            for span in reader.spans() {
                assert_eq!(span.start, at, "one follows the other");
                let text = &texts[&(span.file, span.group, span.row)];
                let mut ids = Vec::new();
                tokenizer.encode_document(text, &mut ids).unwrap();
                ids.push(end_of_text);
                assert_eq!(span.length, ids.len() as u64);
                let (offset, tokens) = (span.offset as usize, span.tokens as usize);
                assert_eq!(batch.inputs[at as usize..][..tokens], ids[offset..offset + tokens]);
                at += span.tokens;
            }
            assert_eq!(at, batch.counted, "every input that counts is in a document");
        }
    }
}
