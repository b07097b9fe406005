use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    FeedError, Gauge,
    frame::{Frame, Kind, Parser},
    reader::Anchor,
};

/// A control message of the streamer, for whoever supervises it.
pub struct Message {
    /// `loading`, `ready`, `progress`, `heartbeat`, `error` or `done`.
    pub kind: Kind,
    /// The message's own JSON.
    pub json: Vec<u8>,
}

/// One streamer process as the feeds see it: its frames are parsed and routed here, requests to it are queued here.
///
/// The bytes come and go by other hands: [`push`](Self::push) takes what was read from the pipe,
/// [`take_requests`](Self::take_requests) gives what is to be written to the process's standard input.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    on_request: Mutex<Option<Box<dyn Fn() + Send + Sync>>>,
}

#[derive(Default)]
struct State {
    parser: Parser,
    next_id: u64,
    pending: BTreeMap<u64, Pending>,
    outbox: VecDeque<String>,
    failure: Option<FeedError>,
}

struct Pending {
    request: Request,
    inbox: Arc<Inbox>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Request {
    File { file: u32 },
    Read { file: u32, group: u32, row: u64, rows: u64 },
}

/// What a request brought.
pub(crate) enum Answer {
    /// Rows of each row group, or none where the file has no row groups.
    Shape {
        file: u32,
        groups: Option<Vec<u64>>,
    },
    Rows(Rows),
}

/// One batch frame: documents in the order of their rows.
pub(crate) struct Rows {
    pub(crate) file: u32,
    pub(crate) group: u32,
    /// Row of the first document within the row group or turn.
    pub(crate) row: u64,
    /// The turn's last row is in here.
    pub(crate) end: bool,
    /// The file's last row is in here.
    pub(crate) eof: bool,
    pub(crate) text: Text,
    /// A place at or before its first row where the source can be started again, for a source that names such places.
    pub(crate) anchor: Option<Arc<Anchor>>,
}

/// The documents of a frame. Counted in the gauge as long as anything refers to it.
pub(crate) struct Text {
    body: Vec<u8>,
    /// Where the offsets begin in `body`.
    start: usize,
    rows: usize,
    gauge: Arc<Gauge>,
}

/// Answers for one reader, in the order of its requests.
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    changed: Condvar,
    gauge: Arc<Gauge>,
}

#[derive(Default)]
struct Queue {
    answers: VecDeque<Answer>,
    failure: Option<FeedError>,
    nudged: bool,
}

#[derive(Deserialize)]
struct FileJson {
    id: u64,
    row_groups: Option<Vec<u64>>,
}

#[derive(Deserialize)]
struct BatchJson {
    id: u64,
    row: u64,
    rows: usize,
    end: bool,
    eof: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link to a streamer that has sent nothing yet.
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::default(), on_request: Mutex::new(None) }) }
    }

    /// Calls `hook` whenever requests were queued; from any thread, so it must not block.
    pub fn on_request(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.shared.on_request.lock().expect(HELD) = Some(Box::new(hook));
    }

    /// Takes bytes read from the streamer's pipe and returns the control messages in them.
    ///
    /// # Errors
    /// `PROTOCOL_VIOLATION` for anything that the protocol does not allow.
    pub fn push(&self, chunk: &[u8]) -> Result<Vec<Message>, FeedError> {
        let mut frames = Vec::new();
        let mut state = self.state();
        state.parser.push(chunk, |frame| frames.push(frame))?;
        let mut messages = Vec::new();
        for frame in frames {
            match frame.kind {
                Kind::File => state.route_shape(&frame)?,
                Kind::Batch => state.route_batch(frame)?,
                kind => messages.push(Message { kind, json: frame.json().to_vec() }),
            }
        }
        Ok(messages)
    }

    /// Request lines to write to the streamer's standard input, each ended by a newline; empty when there are none.
    pub fn take_requests(&self) -> String {
        self.state().outbox.drain(..).collect()
    }

    /// The streamer was started anew: whatever it still owed is requested once more, from the first row not received.
    pub fn restart(&self) {
        let mut state = self.state();
        state.parser = Parser::default();
        state.outbox = state.pending.iter().map(|(&id, pending)| line(id, pending.request)).collect();
        drop(state);
        self.requested();
    }

    /// Ends every feed on this link with `error`, now and later. The first failure stays.
    pub fn fail(&self, error: FeedError) {
        let mut state = self.state();
        if state.failure.is_none() {
            for (_, pending) in std::mem::take(&mut state.pending) {
                pending.inbox.fail(error.clone());
            }
            state.outbox.clear();
            state.failure = Some(error);
        }
    }

    pub(crate) fn request(&self, request: Request, inbox: &Arc<Inbox>) {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return inbox.fail(failure.clone());
        }
        let id = state.next_id;
        state.next_id += 1;
        state.outbox.push_back(line(id, request));
        state.pending.insert(id, Pending { request, inbox: inbox.clone() });
        drop(state);
        self.requested();
    }

    /// Forgets the requests of a reader that is gone: their answers, still to come, are dropped.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>) {
        for pending in self.state().pending.values_mut().filter(|p| Arc::ptr_eq(&p.inbox, inbox)) {
            pending.inbox = Arc::new(Inbox::new(Arc::default()));
        }
    }

    fn requested(&self) {
        if let Some(hook) = &*self.shared.on_request.lock().expect(HELD) {
            hook();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect(HELD)
    }
}

const HELD: &str = "no thread panics while it holds this lock";

fn line(id: u64, request: Request) -> String {
    let mut line = match request {
        Request::File { file } => json!({"id": id, "op": "file", "file": file}),
        Request::Read { file, group, row, rows } => {
            json!({"id": id, "op": "read", "file": file, "group": group, "row": row, "rows": rows})
        }
    }
    .to_string();
    line.push('\n');
    line
}

impl State {
    fn route_shape(&mut self, frame: &Frame) -> Result<(), FeedError> {
        let answer: FileJson = parse(frame)?;
        match self.pending.remove(&answer.id) {
            Some(Pending { request: Request::File { file }, inbox }) => {
                inbox.put(Answer::Shape { file, groups: answer.row_groups });
                Ok(())
            }
            _ => Err(FeedError::protocol(format!(
                "a file frame answers request {}, which asked for none",
                answer.id
            ))),
        }
    }

    fn route_batch(&mut self, frame: Frame) -> Result<(), FeedError> {
        let batch: BatchJson = parse(&frame)?;
        let Some(pending) = self.pending.get_mut(&batch.id) else {
            return Err(FeedError::protocol(format!(
                "a batch answers request {}, which is not open",
                batch.id
            )));
        };
        let Request::Read { file, group, row, rows } = &mut pending.request else {
            return Err(FeedError::protocol(format!(
                "a batch answers request {}, which asked for a shape",
                batch.id
            )));
        };
        if batch.row != *row || batch.rows as u64 > *rows {
            return Err(FeedError::protocol(format!(
                "a batch brings rows {}+{} of file {file}, group {group}; expected from {row}, at most {rows}",
                batch.row, batch.rows
            )));
        }
        let (file, group) = (*file, *group);
        *row += batch.rows as u64;
        *rows -= batch.rows as u64;
        // A request for part of a long row group ends when its rows are there, whatever `end` says.
        let answered = batch.end || *rows == 0;
        if batch.rows == 0 && !batch.end {
            return Err(FeedError::protocol("a batch brings nothing and does not end its turn"));
        }
        let inbox = pending.inbox.clone();
        if answered {
            self.pending.remove(&batch.id);
        }
        let (row, end, eof) = (batch.row, batch.end, batch.eof);
        let (body, start) = frame.into_body();
        let text = Text::new(body, start, batch.rows, inbox.gauge.clone())?;
        inbox.put_rows(Rows { file, group, row, end, eof, text, anchor: None });
        Ok(())
    }
}

fn parse<'a, T: Deserialize<'a>>(frame: &'a Frame) -> Result<T, FeedError> {
    serde_json::from_slice(frame.json())
        .map_err(|e| FeedError::protocol(format!("the JSON of a {} frame: {e}", frame.kind.name())))
}

impl Text {
    /// `rows + 1` offsets and the bytes they point into, from `start` in `body` on.
    pub(crate) fn new(
        body: Vec<u8>,
        start: usize,
        rows: usize,
        gauge: Arc<Gauge>,
    ) -> Result<Self, FeedError> {
        let bytes = body.len() - start;
        gauge.add_text(bytes as u64);
        let text = Self { body, start, rows, gauge };
        let wrong = |what: &str| Err(FeedError::protocol(format!("the offsets of a batch {what}")));
        if bytes < 4 * (rows + 1) {
            return wrong("are cut short");
        }
        if text.offset(0) != 0 || 4 * (rows + 1) + text.offset(rows) != bytes {
            return wrong("do not fit its text");
        }
        if (0..rows).any(|i| text.offset(i) > text.offset(i + 1)) {
            return wrong("go backwards");
        }
        Ok(text)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes of document `index`; empty for a null.
    pub(crate) fn document(&self, index: usize) -> &[u8] {
        let Range { start, end } = self.offset(index)..self.offset(index + 1);
        &self.body[self.start + 4 * (self.rows + 1)..][start..end]
    }

    fn offset(&self, index: usize) -> usize {
        let bytes = &self.body[self.start + 4 * index..][..4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes")) as usize
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.gauge.remove_text((self.body.len() - self.start) as u64);
    }
}

impl Inbox {
    pub(crate) fn new(gauge: Arc<Gauge>) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new(), gauge }
    }

    pub(crate) fn put_rows(&self, rows: Rows) {
        let text = &rows.text;
        self.gauge.count_read(text.rows as u64, text.offset(text.rows) as u64);
        self.put(Answer::Rows(rows));
    }

    pub(crate) fn put(&self, answer: Answer) {
        self.queue.lock().expect(HELD).answers.push_back(answer);
        self.changed.notify_one();
    }

    /// Every later `take` fails with `error` once the answers already here are taken.
    pub(crate) fn fail(&self, error: FeedError) {
        self.queue.lock().expect(HELD).failure.get_or_insert(error);
        self.changed.notify_one();
    }

    /// Ends a `take` that waits, or the next one.
    pub(crate) fn nudge(&self) {
        self.queue.lock().expect(HELD).nudged = true;
        self.changed.notify_one();
    }

    pub(crate) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// The next answer; sleeps until there is one. None after a nudge.
    pub(crate) fn take(&self) -> Result<Option<Answer>, FeedError> {
        let mut queue = self.queue.lock().expect(HELD);
        loop {
            if let Some(answer) = queue.answers.pop_front() {
                return Ok(Some(answer));
            }
            if let Some(failure) = &queue.failure {
                return Err(failure.clone());
            }
            if std::mem::take(&mut queue.nudged) {
                return Ok(None);
            }
            queue = self.changed.wait(queue).expect(HELD);
        }
    }
}
