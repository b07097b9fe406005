use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use candlewick_feed::{FeedError, LineLink, Link};
use napi::{
    Env,
    bindgen_prelude::{Object, Uint8Array},
};
use napi_derive::napi;
use serde_json::Value;

use crate::{
    failure::Failure,
    promise::{Promise, Waiting},
};

/// One streamer process: its frames come in here, requests to it come out.
#[napi]
pub struct NativeLink {
    link: Link,
    closed: Arc<AtomicBool>,
    writes: Waiting<Option<String>>,
}

#[napi]
impl NativeLink {
    /// A link to a streamer that has sent nothing yet.
    #[napi(constructor)]
    #[allow(clippy::new_without_default, reason = "only JavaScript makes one")]
    pub fn new() -> Self {
        let link = Link::new();
        let writes: Waiting<Option<String>> = Waiting::new();
        let (requested, waiting) = (link.clone(), writes.clone());
        link.on_request(move || waiting.offer(|| requests(&requested).map(Some)));
        Self { link, closed: Arc::default(), writes }
    }

    /// Takes bytes from the streamer's pipe; returns its control messages as a JSON array, or null.
    #[napi]
    pub fn push(&self, chunk: Uint8Array) -> napi::Result<Option<String>> {
        let messages = self.link.push(&chunk).map_err(Failure::from)?;
        if messages.is_empty() {
            return Ok(None);
        }
        let mut all = Vec::new();
        for message in messages {
            match serde_json::from_slice(&message.json) {
                Ok(Value::Object(mut object)) => {
                    object.insert("kind".into(), message.kind.name().into());
                    all.push(Value::Object(object));
                }
                _ => {
                    return Err(Failure::from(FeedError::new(
                        "PROTOCOL_VIOLATION",
                        format!("a {} frame carries no JSON object", message.kind.name()),
                        "the streamer and this version of candlewick do not match; reinstall candlewick",
                    ))
                    .into());
                }
            }
        }
        Ok(Some(Value::Array(all).to_string()))
    }

    /// Lines to write to the streamer's standard input; null once closed.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn next_writes<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::new(env)?;
        let closed = self.closed.load(Ordering::SeqCst);
        self.writes.wait(promise, || if closed { Some(None) } else { requests(&self.link).map(Some) });
        Ok(object)
    }

    /// The streamer was started anew: what it still owed is requested again.
    #[napi]
    pub fn restart(&self) {
        self.link.restart();
    }

    /// Ends every feed on this link with an error.
    #[napi]
    pub fn fail(&self, code: String, message: String, hint: String) {
        self.link.fail(FeedError { code, message, hint });
    }

    /// Ends `nextWrites` and every feed on this link.
    #[napi]
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let Failure { code, message, hint } = Failure::closed("the corpus");
        self.link.fail(FeedError { code, message, hint });
        self.writes.offer(|| Some(None));
    }

    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }
}

/// One command that writes JSON lines: what its runs write comes in here, what to do with them comes out.
#[napi]
pub struct NativeLineLink {
    link: LineLink,
    closed: Arc<AtomicBool>,
    commands: Waiting<Option<String>>,
}

#[napi]
impl NativeLineLink {
    /// A link to a program that does not run yet.
    #[napi(constructor)]
    #[allow(clippy::new_without_default, reason = "only JavaScript makes one")]
    pub fn new() -> Self {
        let link = LineLink::new();
        let commands: Waiting<Option<String>> = Waiting::new();
        let (commanded, waiting) = (link.clone(), commands.clone());
        link.on_command(move || waiting.offer(|| lines(commanded.take_commands()).map(Some)));
        Self { link, closed: Arc::default(), commands }
    }

    /// Takes bytes of the standard output of a run; whether to read on.
    #[napi]
    pub fn push(&self, reading: u32, run: u32, chunk: Uint8Array) -> napi::Result<bool> {
        Ok(self.link.push(reading, run, &chunk).map_err(Failure::from)?)
    }

    /// The output of a run is over; whether it had said that it was done.
    #[napi]
    pub fn finish(&self, reading: u32, run: u32, clean: bool) -> napi::Result<bool> {
        Ok(self.link.finish(reading, run, clean).map_err(Failure::from)?)
    }

    /// Rows of this pass that a reading has received.
    #[napi]
    pub fn received(&self, reading: u32) -> f64 {
        self.link.received(reading) as f64
    }

    /// A run is gone before its time: another goes on where it was.
    #[napi]
    pub fn restart(&self, reading: u32) {
        self.link.restart(reading);
    }

    /// What to do with the runs, as JSON lines; null once closed.
    #[napi(ts_return_type = "Promise<string | null>")]
    pub fn next_commands<'e>(&self, env: &'e Env) -> napi::Result<Object<'e>> {
        let (promise, object) = Promise::new(env)?;
        let closed = self.closed.load(Ordering::SeqCst);
        self.commands
            .wait(promise, || if closed { Some(None) } else { lines(self.link.take_commands()).map(Some) });
        Ok(object)
    }

    /// Ends one reader with an error.
    #[napi]
    pub fn fail_reading(&self, reading: u32, code: String, message: String, hint: String) {
        self.link.fail_reading(reading, FeedError { code, message, hint });
    }

    /// Ends every feed on this link with an error.
    #[napi]
    pub fn fail(&self, code: String, message: String, hint: String) {
        self.link.fail(FeedError { code, message, hint });
    }

    /// Ends `nextCommands` and every feed on this link.
    #[napi]
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let Failure { code, message, hint } = Failure::closed("the corpus");
        self.link.fail(FeedError { code, message, hint });
        self.commands.offer(|| Some(None));
    }

    pub(crate) fn link(&self) -> LineLink {
        self.link.clone()
    }
}

fn requests(link: &Link) -> Option<String> {
    lines(link.take_requests())
}

fn lines(lines: String) -> Option<String> {
    Some(lines).filter(|lines| !lines.is_empty())
}
