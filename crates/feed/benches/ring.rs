//! Our ring beside the crate `rtrb`: tokens a second from one thread to another, documents of 1,000 tokens pushed
//! whole, batches of 16,384 read in place. `cargo bench -p candlewick-feed --bench ring`
//!
//! `rtrb` has no waiting of its own; its side yields while it cannot go on. Ours parks.

use std::{hint::black_box, time::Instant};

const TOKENS: usize = 200_000_000;
const CAPACITY: usize = 1 << 17;
const DOCUMENT: usize = 1000;
const BATCH: usize = 16_384;
const ROUNDS: usize = 7;

fn main() {
    let mut ratios = Vec::new();
    println!("round  ours Mtok/s  rtrb Mtok/s  ratio");
    for round in 1..=ROUNDS {
        // Interleaved, so that what else the machine does meets both.
        let (ours, theirs) = (rate(ours), rate(theirs));
        ratios.push(ours / theirs);
        println!("{round:5}  {ours:11.0}  {theirs:11.0}  {:5.2}", ours / theirs);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2} (min {:.2}, max {:.2})", ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1]);
}

fn rate(run: fn() -> u64) -> f64 {
    let began = Instant::now();
    black_box(run());
    TOKENS as f64 / began.elapsed().as_secs_f64() / 1e6
}

fn ours() -> u64 {
    let (mut producer, mut consumer) = candlewick_feed::ring::ring(CAPACITY);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let document = [7; DOCUMENT];
            for _ in 0..TOKENS / DOCUMENT {
                producer.push(&document).expect("the consumer reads to the end");
            }
        });
        let mut sum = 0;
        while consumer.wait(None) != candlewick_feed::ring::Wait::Finished {
            let (first, second) = consumer.peek(BATCH);
            let count = first.len() + second.len();
            sum += total(first) + total(second);
            consumer.release(count);
        }
        sum
    })
}

fn theirs() -> u64 {
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(CAPACITY);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let document = [7_u32; DOCUMENT];
            for _ in 0..TOKENS / DOCUMENT {
                while producer.slots() < DOCUMENT {
                    std::thread::yield_now();
                }
                let mut chunk = producer.write_chunk(DOCUMENT).expect("there is room");
                let (first, second) = chunk.as_mut_slices();
                first.copy_from_slice(&document[..first.len()]);
                second.copy_from_slice(&document[first.len()..]);
                chunk.commit_all();
            }
        });
        let (mut sum, mut read) = (0, 0);
        while read < TOKENS / DOCUMENT * DOCUMENT {
            let count = consumer.slots().min(BATCH);
            if count == 0 {
                std::thread::yield_now();
                continue;
            }
            let chunk = consumer.read_chunk(count).expect("they are there");
            let (first, second) = chunk.as_slices();
            sum += total(first) + total(second);
            chunk.commit_all();
            read += count;
        }
        sum
    })
}

fn total(tokens: &[u32]) -> u64 {
    tokens.iter().map(|&token| u64::from(token)).sum()
}
