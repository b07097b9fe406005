//! Documents of several sources: their order against the words of the promise, and how far a source may be ahead.

mod support;

use candlewick_feed::{Feed, FeedOptions, OnExhausted, OrderKind};
use support::*;

/// A mixture of `count` random datasets whose documents begin with the number of their source.
fn sources(random: &mut Random, count: usize) -> Vec<Dataset> {
    (0..count)
        .map(|source| {
            let mut dataset = Dataset::random(random, source % 2 == 0);
            for text in dataset.files.iter_mut().flat_map(|f| &mut f.groups).flatten().flatten() {
                if !text.is_empty() {
                    text.insert_str(0, &format!("{source}|"));
                }
            }
            dataset
        })
        .collect()
}

#[test]
fn documents_of_several_sources_follow_their_shares_of_bytes() {
    let policies = [OnExhausted::Stop, OnExhausted::Drop, OnExhausted::Repeat];
    for seed in 0..60 {
        println!("seed {seed}");
        let random = &mut Random(seed ^ 0x3141);
        let count = 2 + random.below(4);
        let datasets = sources(random, count);
        let weights: Vec<u64> = (0..count).map(|_| 1 + random.below(5) as u64).collect();
        let chosen: Vec<_> = (0..count).map(|_| policies[random.below(3)]).collect();
        let limit = chosen.contains(&OnExhausted::Repeat).then(|| 500 + random.below(3000) as u64);
        let mut options = options(datasets.iter().map(source).collect(), 1, 1, 1);
        for ((source, &weight), &policy) in options.sources.iter_mut().zip(&weights).zip(&chosen) {
            (source.weight, source.on_exhausted) = (weight as f64, policy);
        }
        let options = FeedOptions { order: OrderKind::File, batches: None, max_samples: limit, ..options };

        let streamers: Vec<_> = datasets.iter().map(|d| Streamer::start(d, 1 + random.below(50))).collect();
        let links: Vec<_> = streamers.iter().map(|s| s.link.clone()).collect();
        let (feed, mut documents) = Feed::documents(&options, &links).unwrap();
        let mut come = Vec::new();
        loop {
            let some = documents.take(1 + random.below(40)).unwrap();
            if some.is_empty() {
                break;
            }
            come.extend(some.iter().map(|d| String::from_utf8(d.bytes().to_vec()).unwrap()));
        }
        drop(documents);
        drop(feed);

        let all: Vec<Vec<String>> =
            datasets.iter().map(|d| d.in_file_order().into_iter().map(|(_, text)| text).collect()).collect();
        let (mut at, mut active) = (vec![0; count], vec![true; count]);
        let (mut consumed, mut longest) = (vec![0_u64; count], 0);
        let mut documents = come.iter();
        loop {
            let sum: u64 = (0..count).filter(|&i| active[i]).map(|i| weights[i]).sum();
            let total: u64 = consumed.iter().sum();
            let deficit = |i: usize| (weights[i] * total) as i128 - (consumed[i] * sum) as i128;
            let Some(i) =
                (0..count).filter(|&i| active[i]).min_by_key(|&i| (std::cmp::Reverse(deficit(i)), i))
            else {
                break;
            };
            if at[i] == all[i].len() && chosen[i] == OnExhausted::Repeat {
                at[i] = 0;
            }
            if at[i] == all[i].len() {
                if chosen[i] == OnExhausted::Stop {
                    break;
                }
                active[i] = false;
                consumed.fill(0);
                longest = 0;
                continue;
            }
            let Some(document) = documents.next() else {
                assert_eq!(Some(come.len() as u64), limit, "seed {seed}: only the limit ends it here");
                break;
            };
            assert_eq!(*document, all[i][at[i]], "seed {seed}");
            at[i] += 1;
            consumed[i] += document.len() as u64;
            longest = longest.max(document.len() as u64);
            let total: u64 = consumed.iter().sum();
            for j in (0..count).filter(|&j| active[j]) {
                // Times the sum of the weights, so that it stays whole.
                let ahead = (consumed[j] * sum) as i128 - (weights[j] * total) as i128;
                assert!(ahead <= (longest * sum) as i128, "seed {seed}: source {j} is ahead by {ahead}");
            }
        }
        assert!(documents.next().is_none(), "seed {seed}: nothing comes after the end");
    }
}
