#[cfg(loom)]
use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
#[cfg(not(loom))]
use std::sync::{
    Condvar, Mutex,
    atomic::{AtomicBool, Ordering, fence},
};
use std::time::Duration;

/// Lets one thread sleep until another has published something, at the price of a fence and a load for the other.
///
/// The sleeper says that it waits and then looks again; the waker publishes and then looks whether somebody waits.
/// A sequentially consistent fence stands between the two steps on both sides, so at least one sees the other's.
pub(super) struct Parker {
    waiting: AtomicBool,
    /// True when somebody called: the wait, or the next one, ends at once.
    called: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    pub(super) fn new() -> Self {
        Self { waiting: AtomicBool::new(false), called: Mutex::new(false), changed: Condvar::new() }
    }

    /// Sleeps until `ready`, a call or the timeout; may also return early for no reason.
    pub(super) fn wait(&self, timeout: Option<Duration>, ready: impl Fn() -> bool) {
        if look_again(&ready) {
            return;
        }
        let mut called = self.called.lock().expect("no thread panics while it holds this lock");
        self.waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !*called && !ready() {
            called = sleep(&self.changed, called, timeout);
        }
        *called = false;
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// To be called after publishing.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) {
            // Taking the lock waits until the sleeper sleeps: between its look and its sleep it holds the lock.
            drop(self.called.lock().expect("no thread panics while it holds this lock"));
            self.changed.notify_all();
        }
    }

    /// Ends the current wait or the next one, whatever `ready` says.
    pub(super) fn call(&self) {
        *self.called.lock().expect("no thread panics while it holds this lock") = true;
        self.changed.notify_all();
    }
}

/// Gives the processor away a few times before sleeping: where both sides are busy, the other is back within
/// microseconds, and a sleep would cost a system call on each side. A side with nothing to do is asleep right after.
#[cfg(not(loom))]
fn look_again(ready: &impl Fn() -> bool) -> bool {
    const LOOKS: usize = 8;
    (0..LOOKS).any(|_| {
        std::thread::yield_now();
        ready()
    })
}

/// Under loom every interleaving is tried anyway.
#[cfg(loom)]
fn look_again(_ready: &impl Fn() -> bool) -> bool {
    false
}

#[cfg(not(loom))]
fn sleep<'a>(
    changed: &Condvar,
    guard: std::sync::MutexGuard<'a, bool>,
    timeout: Option<Duration>,
) -> std::sync::MutexGuard<'a, bool> {
    match timeout {
        None => changed.wait(guard).expect("no thread panics while it holds this lock"),
        Some(t) => changed.wait_timeout(guard, t).expect("no thread panics while it holds this lock").0,
    }
}

/// Loom has no clock: a wait with a timeout is a wait.
#[cfg(loom)]
fn sleep<'a>(
    changed: &Condvar,
    guard: loom::sync::MutexGuard<'a, bool>,
    _timeout: Option<Duration>,
) -> loom::sync::MutexGuard<'a, bool> {
    changed.wait(guard).unwrap()
}
