//! Mixtures of tokens over resumes: how far a source may be ahead of its share, for each way a source may end, and
//! limits that are raised between the legs of a run.

mod support;

use candlewick_feed::{Batch, FeedOptions, OnExhausted};
use candlewick_tokenizer::Tokenizer;
use support::*;

const POLICIES: [OnExhausted; 3] = [OnExhausted::Stop, OnExhausted::Drop, OnExhausted::Repeat];

/// Datasets of `documents` texts each, which begin with the number of their source.
fn numbered(random: &mut Random, documents: &[usize]) -> Vec<Dataset> {
    let dataset = |(source, &count): (usize, &usize)| {
        let text = |d| format!("{source}|{d}|{}", "x".repeat(random.below(60)));
        let rows: Vec<_> = (0..count).map(text).map(Some).collect();
        let groups = rows.chunks(3).map(<[_]>::to_vec).collect();
        Dataset { files: vec![File { path: format!("{source}.x"), groups }], row_groups: true }
    };
    documents.iter().enumerate().map(dataset).collect()
}

fn mixed(datasets: &[Dataset], weights: &[u64], policies: &[OnExhausted]) -> FeedOptions {
    let mut options = options(datasets.iter().map(source).collect(), 8, 2, 16);
    for ((source, &weight), &policy) in options.sources.iter_mut().zip(weights).zip(policies) {
        (source.weight, source.on_exhausted) = (weight as f64, policy);
    }
    options
}

/// Reads in legs, each from the state that the one before left; the last goes to the end.
fn in_legs(
    datasets: &[Dataset],
    legs: &[(FeedOptions, usize)],
    tokenizer: &Tokenizer,
) -> Vec<(Batch, String)> {
    let datasets: Vec<_> = datasets.iter().collect();
    let mut all: Vec<(Batch, String)> = Vec::new();
    for (options, most) in legs {
        let state = all.last().map(|(_, state)| state.clone());
        all.extend(run(&datasets, &FeedOptions { state, ..options.clone() }, tokenizer, *most));
    }
    all
}

/// The hash after the last batch.
fn hash(batches: &[(Batch, String)]) -> String {
    let state: serde_json::Value = serde_json::from_str(&batches.last().unwrap().1).unwrap();
    state["hash"].as_str().unwrap().to_string()
}

#[test]
fn after_every_document_no_source_is_ahead_by_more_than_its_last_one() {
    let tokenizer = bytes_tokenizer();
    let (mut resumed_after_a_drop, mut repeated) = (0, 0);
    for seed in 0..90_u64 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0x5eed);
        let policy = POLICIES[seed as usize % 3];
        let count = 2 + (seed as usize / 3) % 4;
        let sizes: Vec<_> = (0..count).map(|_| 3 + random.below(40)).collect();
        let weights: Vec<_> = (0..count).map(|_| 1 + random.below(5) as u64).collect();
        let datasets = numbered(random, &sizes);
        let mut options = mixed(&datasets, &weights, &vec![policy; count]);
        // Long enough for the shortest source to come several times.
        options.max_samples = (policy == OnExhausted::Repeat).then_some(250);

        let whole = in_legs(&datasets, &[(options.clone(), usize::MAX)], &tokenizer);
        let mut legs: Vec<_> =
            (0..4).map(|_| (options.clone(), 1 + random.below(whole.len() / 4 + 1))).collect();
        legs.push((options.clone(), usize::MAX));
        let resumed = in_legs(&datasets, &legs, &tokenizer);
        assert_eq!(stream(&resumed), stream(&whole), "seed {seed}");
        assert_eq!(hash(&resumed), hash(&whole), "seed {seed}");

        let come = documents(&tokenizer, &stream(&resumed));
        let mut left = sizes.clone();
        let (mut active, mut consumed, mut last) = (vec![true; count], vec![0; count], vec![0; count]);
        for (n, text) in come.iter().enumerate() {
            let of = text.split('|').next().unwrap().parse::<usize>().unwrap();
            // One whose turn it is and that has nothing left is out before this document.
            let mut due = most_behind(&weights, &consumed, &active);
            while policy == OnExhausted::Drop && left[due] == 0 {
                active[due] = false;
                consumed.fill(0);
                last.fill(0);
                due = most_behind(&weights, &consumed, &active);
            }
            assert_eq!(of, due, "seed {seed}, document {n}");
            if policy == OnExhausted::Repeat && left[of] == 0 {
                left[of] = sizes[of];
                repeated += 1;
            }
            left[of] -= 1;
            // Bytes are tokens here; one more closes the document.
            last[of] = text.len() as u64 + 1;
            consumed[of] += last[of];
            let total: u64 = consumed.iter().sum();
            let sum: u64 = (0..count).filter(|&i| active[i]).map(|i| weights[i]).sum();
            for i in (0..count).filter(|&i| active[i]) {
                assert!(
                    consumed[i] * sum <= weights[i] * total + last[i] * sum,
                    "seed {seed}: source {i} is ahead by more than a document after document {n}"
                );
            }
        }
        match policy {
            OnExhausted::Drop => assert_eq!(come.len(), sizes.iter().sum::<usize>(), "seed {seed}"),
            OnExhausted::Repeat => assert_eq!(come.len(), 250, "seed {seed}"),
            OnExhausted::Stop => assert!(left.contains(&0), "seed {seed}: one is at its end"),
        }
        let mut at = 0;
        for (_, most) in &legs[..4] {
            at += most;
            resumed_after_a_drop +=
                usize::from(resumed.get(at - 1).is_some_and(|(_, state)| state.contains("\"dropped\":true")));
        }
    }
    assert!(resumed_after_a_drop > 5, "the cases resume behind a drop: {resumed_after_a_drop}");
    assert!(repeated > 20, "the cases repeat a source: {repeated}");
}

fn most_behind(weights: &[u64], consumed: &[u64], active: &[bool]) -> usize {
    let among: Vec<_> = (0..weights.len()).filter(|&i| active[i]).collect();
    let sum: u64 = among.iter().map(|&i| weights[i]).sum();
    let total: u64 = consumed.iter().sum();
    let deficit = |i: usize| (weights[i] * total) as i128 - (consumed[i] * sum) as i128;
    among.into_iter().reduce(|best, i| if deficit(i) > deficit(best) { i } else { best }).unwrap()
}

#[test]
fn max_samples_counts_over_all_sources_and_may_be_raised() {
    let tokenizer = bytes_tokenizer();
    for seed in 0..30_u64 {
        let random = &mut Random(seed ^ 0x11a7);
        let count = 1 + random.below(4);
        let datasets = numbered(random, &vec![12; count]);
        let weights: Vec<_> = (0..count).map(|_| 1 + random.below(4) as u64).collect();
        let to = |max_samples| FeedOptions {
            max_samples: Some(max_samples),
            ..mixed(&datasets, &weights, &vec![OnExhausted::Drop; count])
        };
        let (low, high) = (1 + random.below(5) as u64, 6 + random.below(6) as u64);
        let whole = in_legs(&datasets, &[(to(high), usize::MAX)], &tokenizer);
        let raised = in_legs(&datasets, &[(to(low), usize::MAX), (to(high), usize::MAX)], &tokenizer);
        assert_eq!(documents(&tokenizer, &stream(&whole)).len() as u64, high, "seed {seed}");
        assert_eq!(stream(&raised), stream(&whole), "seed {seed}: {low}, then {high}");
        assert_eq!(hash(&raised), hash(&whole), "seed {seed}: {low}, then {high}");
    }
}

#[test]
fn epochs_may_be_raised_where_nothing_dropped_out() {
    let tokenizer = bytes_tokenizer();
    for seed in 0..60_u64 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0xe90c);
        let count = 1 + random.below(4);
        let sizes: Vec<_> = (0..count).map(|_| 2 + random.below(20)).collect();
        let datasets = numbered(random, &sizes);
        let weights: Vec<_> = (0..count).map(|_| 1 + random.below(4) as u64).collect();
        // The first stops the stream, so that it ends; the others may repeat.
        let policies: Vec<_> = (0..count)
            .map(|i| if i == 0 { OnExhausted::Stop } else { POLICIES[2 * random.below(2)] })
            .collect();
        let to = |epochs| FeedOptions { epochs: Some(epochs), ..mixed(&datasets, &weights, &policies) };
        let whole = in_legs(&datasets, &[(to(3), usize::MAX)], &tokenizer);
        let raised =
            in_legs(&datasets, &[(to(1), usize::MAX), (to(2), usize::MAX), (to(3), usize::MAX)], &tokenizer);
        assert_eq!(stream(&raised), stream(&whole), "seed {seed}");
        assert_eq!(hash(&raised), hash(&whole), "seed {seed}");
    }
}

#[test]
fn sources_that_dropped_out_take_part_again_when_epochs_are_raised() {
    let tokenizer = bytes_tokenizer();
    for seed in 0..40_u64 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0xd209);
        let count = 2 + random.below(3);
        let sizes: Vec<_> = (0..count).map(|_| 2 + random.below(20)).collect();
        let datasets = numbered(random, &sizes);
        let weights: Vec<_> = (0..count).map(|_| 1 + random.below(4) as u64).collect();
        let policies = vec![OnExhausted::Drop; count];
        let to = |epochs| FeedOptions { epochs: Some(epochs), ..mixed(&datasets, &weights, &policies) };
        let raised = in_legs(&datasets, &[(to(1), usize::MAX), (to(3), usize::MAX)], &tokenizer);
        let mut come = documents(&tokenizer, &stream(&raised));
        come.sort();
        let mut once: Vec<_> =
            datasets.iter().flat_map(|d| d.in_file_order().into_iter().map(|(_, text)| text)).collect();
        once.sort();
        let thrice: Vec<_> = once.iter().flat_map(|text| std::iter::repeat_n(text.clone(), 3)).collect();
        assert_eq!(come, thrice, "seed {seed}: every document once an epoch");
    }
}

#[test]
fn ranks_of_a_mixture_see_the_rows_of_one_and_their_number_may_change() {
    let tokenizer = bytes_tokenizer();
    for seed in 0..12_u64 {
        let random = &mut Random(seed ^ 0x4a2b);
        let count = 2 + random.below(4);
        let datasets = numbered(random, &vec![30; count]);
        let weights: Vec<_> = (0..count).map(|_| 1 + random.below(4) as u64).collect();
        let policy = POLICIES[seed as usize % 3];
        let mut options = mixed(&datasets, &weights, &vec![policy; count]);
        options.max_samples = Some(60);
        options.batches.as_mut().unwrap().rows = 4;
        let whole = in_legs(&datasets, &[(options.clone(), usize::MAX)], &tokenizer);
        let middle = 1 + random.below(whole.len() - 2);
        for (first, then) in [(1, 2), (2, 4), (4, 1), (4, 2)] {
            let of = |world_size, rank| {
                let mut options = options.clone();
                let shape = options.batches.as_mut().unwrap();
                (shape.world_size, shape.rank) = (world_size, rank);
                options
            };
            let begun: Vec<_> =
                (0..first).map(|rank| in_legs(&datasets, &[(of(first, rank), middle)], &tokenizer)).collect();
            let state = begun[0].last().map(|(_, state)| state.clone());
            let all: Vec<_> = datasets.iter().collect();
            let gone_on: Vec<_> = (0..then)
                .map(|rank| {
                    let options = FeedOptions { state: state.clone(), ..of(then, rank) };
                    run(&all, &options, &tokenizer, usize::MAX)
                })
                .collect();
            for (ranks, expected) in [(begun, &whole[..middle]), (gone_on, &whole[middle..])] {
                for (n, (batch, state)) in expected.iter().enumerate() {
                    let union = |part: fn(&Batch) -> &Vec<u32>| -> Vec<u32> {
                        ranks.iter().flat_map(|rank| part(&rank[n].0).clone()).collect()
                    };
                    assert_eq!(union(|b| &b.inputs), batch.inputs, "seed {seed}: {first} to {then}");
                    assert_eq!(union(|b| &b.targets), batch.targets, "seed {seed}: {first} to {then}");
                    assert!(ranks.iter().all(|rank| rank[n].1 == *state), "seed {seed}: {first} to {then}");
                }
                assert!(ranks.iter().all(|rank| rank.len() == expected.len()), "seed {seed}");
            }
        }
    }
}
