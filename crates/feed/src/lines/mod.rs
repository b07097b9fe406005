//! A program that writes documents as JSON lines, as the feeds see it.
//!
//! Such a program cannot be told what to read: it writes from its start, or from a position that it named earlier. So
//! every reader has a run of the program of its own, which counts rows, is read while the reader wants some and is
//! started anew for each pass. The order of rows is that of one file without row groups.

mod parser;
mod reading;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::json;

pub use parser::{Line, LineParser, TextBatch};
use reading::Reading;

use crate::{
    FeedError,
    link::{Answer, Inbox, Request},
    reader::Anchor,
};

/// One command line as the feeds see it: every reader of it has a run of the program.
///
/// Processes live elsewhere: [`take_commands`](Self::take_commands) says what to do with them, [`push`](Self::push)
/// takes what they write.
#[derive(Clone, Default)]
pub struct LineLink {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    on_command: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct State {
    next: u32,
    readings: BTreeMap<u32, Reading>,
    /// Commands of readers that are gone.
    last: Vec<String>,
    failure: Option<FeedError>,
}

const HELD: &str = "no thread panics while it holds this lock";

impl LineLink {
    /// A link to a program that does not run yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `hook` whenever there are commands; from any thread, so it must not block.
    pub fn on_command(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.shared.on_command.lock().expect(HELD) = Some(Box::new(hook));
    }

    /// What to do now, as JSON lines, each with the number of its `reading`; empty when there is nothing.
    ///
    /// `start`: begin `run` of the program (ending an earlier one of this reading) with `position` (JSON text, or null for the
    /// beginning); its first `repeated` texts are here already, `received` rows in all; `read` says whether to read its
    /// output at once. `read`: read on. `status`: the program said `loading` or `ready`. `notice`: tell the user
    /// `message`. `done`: the program said that it is done, and has to end now. `end`: the reader is gone, and so should the program be.
    pub fn take_commands(&self) -> String {
        let mut state = self.state();
        let mut lines: String = state.last.drain(..).collect();
        for (number, reading) in &mut state.readings {
            for mut command in reading.commands.drain(..) {
                command["reading"] = (*number).into();
                lines.push_str(&command.to_string());
                lines.push('\n');
            }
        }
        lines
    }

    /// Takes bytes of the standard output of run `run` of a reading's program. Whether to read on; if not, `read` will say when.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` naming the line; the reading cannot go on.
    pub fn push(&self, reading: u32, run: u32, chunk: &[u8]) -> Result<bool, FeedError> {
        self.with(reading, false, |reading| reading.push(run, chunk))
    }

    /// The output of run `run` of a reading's program is over; `clean` if it ended by itself and without complaint. Whether it had
    /// said that it was done.
    ///
    /// # Errors
    /// As for [`push`](Self::push).
    pub fn finish(&self, reading: u32, run: u32, clean: bool) -> Result<bool, FeedError> {
        self.with(reading, true, |reading| reading.finish(run, clean))
    }

    /// Rows of this pass that a reading has received, those before a resumed reader's first included.
    pub fn received(&self, reading: u32) -> u64 {
        self.state().readings.get(&reading).map_or(0, Reading::received)
    }

    /// A reading's program is gone before its time: a `start` follows for one that goes on where it was.
    pub fn restart(&self, reading: u32) {
        let restarted = self.with(reading, (), |reading| {
            reading.restart();
            Ok(())
        });
        debug_assert!(restarted.is_ok(), "a restart cannot fail");
    }

    /// Ends one reader with `error`.
    pub fn fail_reading(&self, reading: u32, error: FeedError) {
        if let Some(reading) = self.state().readings.get(&reading) {
            reading.inbox.fail(error);
        }
    }

    /// Ends every reader with `error`, now and later. The first failure stays.
    pub fn fail(&self, error: FeedError) {
        let mut state = self.state();
        if state.failure.is_none() {
            state.readings.values().for_each(|reading| reading.inbox.fail(error.clone()));
            state.failure = Some(error);
        }
    }

    pub(crate) fn open(&self, inbox: &Arc<Inbox>, anchor: Option<Anchor>) {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.readings.insert(number, Reading::new(inbox.clone(), anchor.map(Arc::new)));
    }

    pub(crate) fn request(&self, request: Request, inbox: &Arc<Inbox>) {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return inbox.fail(failure.clone());
        }
        let Some(reading) = state.readings.values_mut().find(|reading| Arc::ptr_eq(&reading.inbox, inbox))
        else {
            return;
        };
        match request {
            Request::File { file } => inbox.put(Answer::Shape { file, groups: None }),
            Request::Read { group, row, rows, .. } => {
                if let Err(error) = reading.request(group, row, rows) {
                    inbox.fail(error);
                }
            }
        }
        drop(state);
        self.commanded();
    }

    pub(crate) fn forget(&self, inbox: &Arc<Inbox>) {
        let mut state = self.state();
        let gone = state.readings.iter().find(|(_, reading)| Arc::ptr_eq(&reading.inbox, inbox));
        if let Some(number) = gone.map(|(&number, _)| number) {
            state.readings.remove(&number);
            state.last.push(format!("{}\n", json!({"reading": number, "op": "end"})));
        }
        drop(state);
        self.commanded();
    }

    /// Runs `work` on a reading, if it is still there, and tells of the commands that came of it.
    fn with<T>(
        &self,
        reading: u32,
        gone: T,
        work: impl FnOnce(&mut Reading) -> Result<T, FeedError>,
    ) -> Result<T, FeedError> {
        let outcome = match self.state().readings.get_mut(&reading) {
            Some(reading) => work(reading),
            None => Ok(gone),
        };
        self.commanded();
        outcome
    }

    fn commanded(&self) {
        if let Some(hook) = &*self.shared.on_command.lock().expect(HELD) {
            hook();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect(HELD)
    }
}
