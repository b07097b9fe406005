//! A bounded, lock-free ring of token ids between one producer and one consumer.
//!
//! Tokens are copied in once and read in place: the consumer borrows what is there as at most two slices and then
//! releases it. An index is published with `Release` and read with `Acquire`, so the slots between `head` and `tail`
//! belong to the consumer and the others to the producer. Both sides keep the other's last seen index, as in
//! Lamport's queue with cached indices (FastFlow, `rtrb`): the other's cache line is read only when that runs out.
//! A side that has to wait parks; nothing spins. Checked with loom in `tests/loom_ring.rs`.

mod park;
mod slots;

#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::time::Duration;

use park::Parker;
use slots::Slots;

/// Keeps two indices off one cache line; 128 because x86 prefetches lines in pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    slots: Slots,
    /// Next slot to read; written by the consumer alone. Counts without wrapping at the capacity.
    head: Padded<AtomicUsize>,
    /// Next slot to write; written by the producer alone.
    tail: Padded<AtomicUsize>,
    finished: AtomicBool,
    abandoned: AtomicBool,
    readable: Parker,
    writable: Parker,
}

/// The writing end. Dropping it ends the stream: the consumer still reads what is left.
pub struct Producer {
    shared: Arc<Shared>,
    tail: usize,
    seen_head: usize,
}

/// The reading end. Dropping it makes every later push fail.
pub struct Consumer {
    shared: Arc<Shared>,
    head: usize,
    seen_tail: usize,
}

/// Reaches both ends from a third thread: wakes the consumer, so that it looks at its interrupt flag, or ends both.
#[derive(Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

/// The consumer is gone; nothing pushed would ever be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abandoned;

/// What a wait for tokens ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// At least one token can be read.
    Ready,
    /// The producer is gone and everything was read.
    Finished,
    /// The time ran out, or somebody called [`Waker::wake`].
    Woken,
}

/// A ring for at least `capacity` tokens (rounded up to a power of two).
pub fn ring(capacity: usize) -> (Producer, Consumer) {
    let shared = Arc::new(Shared {
        slots: Slots::new(capacity.max(1).next_power_of_two()),
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        finished: AtomicBool::new(false),
        abandoned: AtomicBool::new(false),
        readable: Parker::new(),
        writable: Parker::new(),
    });
    let producer = Producer { shared: shared.clone(), tail: 0, seen_head: 0 };
    (producer, Consumer { shared, head: 0, seen_tail: 0 })
}

impl Producer {
    /// Tokens the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.shared.slots.capacity()
    }

    /// Copies in as many tokens as there is room for and returns how many that were.
    pub fn try_push(&mut self, tokens: &[u32]) -> usize {
        let capacity = self.capacity();
        let mut room = capacity - self.tail.wrapping_sub(self.seen_head);
        if room < tokens.len() {
            self.seen_head = self.shared.head.0.load(Ordering::Acquire);
            room = capacity - self.tail.wrapping_sub(self.seen_head);
        }
        let count = room.min(tokens.len());
        if count > 0 {
            // SAFETY: slots [tail, tail + count) are free: the consumer has released everything before `seen_head`
            // (Acquire) and `count` is at most what is left of the capacity. There is one producer (`&mut self`).
            unsafe { self.shared.slots.write(self.tail, &tokens[..count]) };
            self.tail = self.tail.wrapping_add(count);
            self.shared.tail.0.store(self.tail, Ordering::Release);
            self.shared.readable.wake();
        }
        count
    }

    /// Copies all of `tokens` in, parking while the ring is full.
    pub fn push(&mut self, mut tokens: &[u32]) -> Result<(), Abandoned> {
        loop {
            if self.shared.abandoned.load(Ordering::Acquire) {
                return Err(Abandoned);
            }
            tokens = &tokens[self.try_push(tokens)..];
            if tokens.is_empty() {
                return Ok(());
            }
            let (shared, tail) = (&self.shared, self.tail);
            shared.writable.wait(None, || {
                shared.abandoned.load(Ordering::Acquire)
                    || tail.wrapping_sub(shared.head.0.load(Ordering::Acquire)) < shared.slots.capacity()
            });
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.finished.store(true, Ordering::Release);
        self.shared.readable.wake();
    }
}

impl Consumer {
    /// Parks until there is something to read, the producer is gone, `timeout` has passed or a [`Waker`] calls.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Wait {
        if self.available() > 0 {
            return Wait::Ready;
        }
        let (shared, head) = (&self.shared, self.head);
        shared.readable.wait(timeout, || {
            shared.finished.load(Ordering::Acquire) || shared.tail.0.load(Ordering::Acquire) != head
        });
        // `finished` before `tail`: the producer stores them in the opposite order, so a finished and empty ring
        // has nothing left to come.
        let finished = self.shared.finished.load(Ordering::Acquire);
        match (self.available(), finished) {
            (0, true) => Wait::Finished,
            (0, false) => Wait::Woken,
            _ => Wait::Ready,
        }
    }

    /// Tokens that can be read now.
    pub fn available(&mut self) -> usize {
        if self.seen_tail == self.head {
            self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.seen_tail.wrapping_sub(self.head)
    }

    /// Borrows up to `limit` tokens, oldest first, as two slices: the second is empty unless they wrap around.
    pub fn peek(&mut self, limit: usize) -> (&[u32], &[u32]) {
        let count = self.available().min(limit);
        // SAFETY: slots [head, head + count) were published by the producer (Acquire in `available`) and are not
        // written again before `release`, which needs `&mut self` and so ends this borrow.
        unsafe { self.shared.slots.slices(self.head, count) }
    }

    /// Gives the oldest `count` tokens back to the producer.
    ///
    /// # Panics
    /// If fewer than `count` tokens were readable.
    pub fn release(&mut self, count: usize) {
        assert!(count <= self.available(), "released more tokens than were readable");
        self.shared.slots.check_readable(self.head, count);
        self.head = self.head.wrapping_add(count);
        self.shared.head.0.store(self.head, Ordering::Release);
        self.shared.writable.wake();
    }

    /// A handle with which another thread ends a [`wait`](Self::wait).
    pub fn waker(&self) -> Waker {
        Waker { shared: self.shared.clone() }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Release);
        self.shared.writable.wake();
    }
}

impl Waker {
    /// Ends the consumer's current wait, or its next one if it does not wait now.
    pub fn wake(&self) {
        self.shared.readable.call();
    }

    /// Makes every push fail from now on, as if the consumer were gone.
    pub fn abandon(&self) {
        self.shared.abandoned.store(true, Ordering::Release);
        self.shared.writable.wake();
    }
}
