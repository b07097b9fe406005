use std::{collections::VecDeque, ops::Range, sync::Arc};

use serde_json::json;

use super::parser::{Line, LineParser, TextBatch};
use crate::{
    FeedError,
    link::{Inbox, Rows, Text},
    order::TURN_ROWS,
    reader::Anchor,
};

/// What one reader reads: pass after pass of the program, each a run of it from the start or from a position.
pub(super) struct Reading {
    pub(super) inbox: Arc<Inbox>,
    /// Where the reader's first request may begin.
    pub(super) anchor: Option<Arc<Anchor>>,
    requests: VecDeque<Request>,
    parser: LineParser,
    begun: bool,
    /// Number of the run of the program.
    run: u32,
    /// Whether whoever moves the bytes was told to read.
    is_read: bool,
    batches: VecDeque<Batch>,
    /// Number of the next row to deliver, of the next one to keep, and of the next one that the program brings. The
    /// last is behind while a program that was started anew repeats what was kept already.
    delivered: u64,
    kept: u64,
    next: u64,
    /// Texts of this run of the program.
    texts: u64,
    /// It said that it is done; the pass is over when it has ended, too, and so cannot say more.
    done: bool,
    over: bool,
    /// Rows of a whole pass, once one has ended.
    pass: Option<u64>,
    replaced: u64,
    /// What the other side has to do, oldest first.
    pub(super) commands: VecDeque<serde_json::Value>,
}

#[derive(Clone, Copy)]
struct Request {
    group: u32,
    row: u64,
    rows: u64,
}

impl Request {
    fn first(self) -> u64 {
        u64::from(self.group) * TURN_ROWS + self.row
    }
}

struct Batch {
    batch: TextBatch,
    taken: usize,
    /// The last boundary with a position at or before its first row.
    anchor: Option<Arc<Anchor>>,
}

impl Reading {
    pub(super) fn new(inbox: Arc<Inbox>, anchor: Option<Arc<Anchor>>) -> Self {
        Self {
            inbox,
            anchor,
            requests: VecDeque::new(),
            parser: LineParser::default(),
            begun: false,
            run: 0,
            is_read: false,
            batches: VecDeque::new(),
            delivered: 0,
            kept: 0,
            next: 0,
            texts: 0,
            done: false,
            over: false,
            pass: None,
            replaced: 0,
            commands: VecDeque::new(),
        }
    }

    pub(super) fn request(&mut self, group: u32, row: u64, rows: u64) -> Result<(), FeedError> {
        self.requests.push_back(Request { group, row, rows: rows.min(TURN_ROWS - row) });
        self.deliver()
    }

    /// Takes bytes of the output of run `run`; whether more of it are wanted now.
    pub(super) fn push(&mut self, run: u32, chunk: &[u8]) -> Result<bool, FeedError> {
        if run != self.run {
            return Ok(false);
        }
        let mut parser = std::mem::take(&mut self.parser);
        let outcome = parser.push(chunk, |line| self.take(line));
        self.parser = parser;
        outcome?;
        self.deliver()?;
        if run != self.run {
            return Ok(false); // The next pass has begun.
        }
        self.is_read = self.wants();
        Ok(self.is_read || self.done)
    }

    /// Run `run` has ended. After a clean end the last line counts without a newline. Whether it had said that it was
    /// done.
    pub(super) fn finish(&mut self, run: u32, clean: bool) -> Result<bool, FeedError> {
        if run != self.run {
            return Ok(true); // Only a run that is done makes room for the next.
        }
        if clean {
            let mut parser = std::mem::take(&mut self.parser);
            let outcome = parser.finish(|line| self.take(line));
            self.parser = parser;
            outcome?;
        }
        let done = self.done;
        self.over = done;
        self.deliver()?;
        Ok(done)
    }

    /// Rows of the pass that are here, delivered or not.
    pub(super) fn received(&self) -> u64 {
        self.kept
    }

    /// The program is gone and another is to go on: from the last position, leaving out what is here already.
    pub(super) fn restart(&mut self) {
        self.start(self.anchor.clone());
    }

    fn take(&mut self, line: Line) -> Result<(), String> {
        if self.done {
            return Err("comes after done".into());
        }
        match line {
            Line::Loading => self.commands.push_back(json!({"op": "status", "status": "loading"})),
            Line::Ready => self.commands.push_back(json!({"op": "status", "status": "ready"})),
            Line::Batch(batch) => return self.take_batch(batch),
            Line::Done { total } => return self.take_done(total),
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: TextBatch) -> Result<(), String> {
        if batch.replaced > 0 && self.replaced == 0 {
            let message = "some texts of the program were not Unicode; what could not be read became U+FFFD";
            self.commands.push_back(json!({"op": "notice", "message": message}));
        }
        self.replaced += batch.replaced;
        let (first, rows) = (self.next, batch.rows() as u64);
        self.next += rows;
        self.texts += rows;
        if let Some(pass) = self.pass.filter(|&pass| self.next > pass) {
            return Err(format!(
                "brings document {}, but the pass before had {pass}: the program does not write the same again",
                self.next
            ));
        }
        let anchor = self.anchor.clone();
        if let Some(position) = &batch.position {
            self.anchor = Some(Arc::new(Anchor { rows: self.next, position: position.clone() }));
        }
        if self.next > self.kept {
            let taken = (self.kept.max(first) - first) as usize;
            self.kept = self.next;
            self.batches.push_back(Batch { batch, taken, anchor });
        }
        Ok(())
    }

    fn take_done(&mut self, total: u64) -> Result<(), String> {
        if total != self.texts {
            return Err(format!(
                "says that the total is {total}, but {} texts came (null and empty ones do not count)",
                self.texts
            ));
        }
        if self.next < self.kept {
            return Err(format!(
                "ends after {} documents, but {} had come before: the program does not write the same again",
                self.next, self.kept
            ));
        }
        if let Some(pass) = self.pass.filter(|&pass| pass != self.next) {
            return Err(format!(
                "ends after {} documents, but {pass} came in the pass before: the program does not write the same again",
                self.next
            ));
        }
        self.pass = Some(self.next);
        self.done = true;
        self.commands.push_back(json!({"op": "done"}));
        Ok(())
    }

    /// Answers what can be answered, and says what the program is to do for the rest.
    fn deliver(&mut self) -> Result<(), FeedError> {
        while let Some(&request) = self.requests.front() {
            if !self.begun || request.first() != self.delivered {
                self.begin(request.first());
            }
            if !self.answer(request)? {
                break;
            }
            self.requests.pop_front();
        }
        if !self.is_read && self.wants() {
            self.is_read = true;
            self.commands.push_back(json!({"op": "read"}));
        }
        Ok(())
    }

    fn wants(&self) -> bool {
        !self.requests.is_empty() && !self.over
    }

    /// Begins a pass at row `from`: with its first row, or where an earlier stream stood.
    fn begin(&mut self, from: u64) {
        let resumed = if self.begun { None } else { self.anchor.take() };
        self.begun = true;
        self.batches.clear();
        (self.delivered, self.kept) = (from, from);
        self.start(resumed.filter(|anchor| anchor.rows <= from));
    }

    fn start(&mut self, anchor: Option<Arc<Anchor>>) {
        self.parser = LineParser::default();
        (self.done, self.over) = (false, false);
        self.texts = 0;
        self.next = anchor.as_ref().map_or(0, |anchor| anchor.rows);
        self.is_read = self.wants();
        self.run += 1;
        self.commands.push_back(json!({
            "op": "start",
            "run": self.run,
            "position": anchor.as_ref().map(|anchor| &anchor.position),
            "repeated": self.kept - self.next,
            "received": self.kept,
            "read": self.is_read,
        }));
        self.anchor = anchor;
    }

    /// Delivers rows for the oldest request; true when that is all of it.
    fn answer(&mut self, request: Request) -> Result<bool, FeedError> {
        let Request { group, mut row, rows } = request;
        let mut left = rows;
        loop {
            while self.batches.front().is_some_and(|batch| batch.taken == batch.batch.rows()) {
                self.batches.pop_front();
            }
            let here = self.kept - self.delivered;
            let over = self.over && here <= left;
            // Whether a turn's last row is the last of all is known only when there is another, or the end.
            let held_back = u64::from(row + left == TURN_ROWS && here == left && !self.over);
            let Some(batch) = self.batches.front_mut().filter(|_| here > held_back) else {
                if over {
                    put(&self.inbox, (group, row), &TextBatch::default(), 0..0, None, true)?;
                }
                self.requests[0] = Request { group, row, rows: left };
                return Ok(over);
            };
            let most = left.min(here - held_back) as usize;
            let count = (batch.batch.rows() - batch.taken).min(most);
            let range = batch.taken..batch.taken + count;
            let eof = over && count as u64 == here;
            put(&self.inbox, (group, row), &batch.batch, range, batch.anchor.clone(), eof)?;
            batch.taken += count;
            (row, left) = (row + count as u64, left - count as u64);
            self.delivered += count as u64;
            if left == 0 || eof {
                return Ok(true);
            }
        }
    }
}

/// Hands rows of a batch to the reader as the rows at `place`: group and row.
fn put(
    inbox: &Inbox,
    (group, row): (u32, u64),
    texts: &TextBatch,
    range: Range<usize>,
    anchor: Option<Arc<Anchor>>,
    eof: bool,
) -> Result<(), FeedError> {
    let rows = range.len();
    let end = eof || row + rows as u64 == TURN_ROWS;
    let text = Text::new(texts.arrow(range.start, range.end), 0, rows, inbox.gauge().clone())?;
    inbox.put_rows(Rows { file: 0, group, row, end, eof, text, anchor });
    Ok(())
}
