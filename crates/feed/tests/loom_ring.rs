//! Every interleaving of one producer and one consumer over a tiny ring: `RUSTFLAGS="--cfg loom" cargo test --test loom_ring`.
#![cfg(loom)]

use candlewick_feed::ring::{Abandoned, Wait, ring};

/// Reads until the producer is gone.
fn drain(consumer: &mut candlewick_feed::ring::Consumer) -> Vec<u32> {
    let mut read = Vec::new();
    loop {
        match consumer.wait(None) {
            Wait::Finished => return read,
            Wait::Woken => {}
            Wait::Ready => {
                let (first, second) = consumer.peek(usize::MAX);
                let count = first.len() + second.len();
                read.extend_from_slice(first);
                read.extend_from_slice(second);
                consumer.release(count);
            }
        }
    }
}

fn bounded(preemptions: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder
}

#[test]
fn tokens_arrive_once_and_in_order_through_a_full_ring() {
    bounded(3).check(|| {
        let (mut producer, mut consumer) = ring(2);
        let writer = loom::thread::spawn(move || {
            producer.push(&[1, 2, 3]).unwrap();
            producer.push(&[4]).unwrap();
        });
        assert_eq!(drain(&mut consumer), [1, 2, 3, 4]);
        writer.join().unwrap();
    });
}

#[test]
fn an_empty_stream_ends() {
    loom::model(|| {
        let (producer, mut consumer) = ring(1);
        let writer = loom::thread::spawn(move || drop(producer));
        assert_eq!(drain(&mut consumer), []);
        writer.join().unwrap();
    });
}

#[test]
fn a_producer_parked_on_a_full_ring_learns_that_the_consumer_is_gone() {
    loom::model(|| {
        let (mut producer, consumer) = ring(1);
        let writer = loom::thread::spawn(move || producer.push(&[1, 2]));
        drop(consumer);
        assert_eq!(writer.join().unwrap(), Err(Abandoned));
    });
}

#[test]
fn a_call_ends_a_wait_even_if_it_came_first() {
    loom::model(|| {
        let (producer, mut consumer) = ring(1);
        let waker = consumer.waker();
        let caller = loom::thread::spawn(move || waker.wake());
        assert_eq!(consumer.wait(None), Wait::Woken);
        caller.join().unwrap();
        drop(producer);
    });
}
