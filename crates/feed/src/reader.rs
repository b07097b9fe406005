use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use crate::{
    FeedError,
    document::{Document, Undrained, Window},
    input::Input,
    link::{Answer, Inbox, Request, Rows},
    order::{Key, Plan, Position, Shape, Step, TURN_ROWS, Turn, permutation},
};

/// A window closes when it holds this much text, however few documents that are.
pub(crate) const WINDOW_BYTES: u64 = 128 << 20;
/// Fetched at most beyond a window's worth of documents: what hides a hub's latency.
pub(crate) const AHEAD_ROWS: u64 = 3 * TURN_ROWS;
/// A longer row group is requested in pieces of this many rows, so that one request stays small.
const PIECE_ROWS: u64 = 4 * TURN_ROWS;

/// The last held-out row of a source in file order; everything up to it is left out of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOutEnd {
    /// Index in the sorted list of files.
    pub file: u32,
    /// Row group, or turn.
    pub group: u32,
    /// Row within it.
    pub row: u64,
    /// How many documents are held out.
    pub documents: u64,
}

/// A row that was read before, in file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Index in the sorted list of files.
    pub file: u32,
    /// Row group, or turn.
    pub group: u32,
    /// Row within it.
    pub row: u64,
}

/// Where a window begins: enough to read it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// Number of the window in its epoch, from 0.
    pub(crate) window: u64,
    /// Where its first row lies.
    pub(crate) position: Position,
    /// For a program: the last place it named at or before that row in this epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) anchor: Option<Anchor>,
}

impl Begin {
    pub(crate) fn new(window: u64, position: Position) -> Self {
        Self { window, position, anchor: None }
    }
}

/// A place that a program named, between two of its batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Anchor {
    /// Rows before it in its epoch.
    pub(crate) rows: u64,
    /// The program's own name for it: JSON text, byte for byte as it came.
    pub(crate) position: String,
}

/// A window, or none at the end of the source. A channel that closes without that has lost its reader.
pub(crate) type Windows = Result<Option<Window>, FeedError>;

const PERMUTED: &str = "a permutation names every index once";

/// How a reader divides and limits what it reads.
pub(crate) struct ReaderOptions {
    /// What messages call the source; none: it is the only one.
    pub(crate) name: Option<String>,
    /// `None`: plain file order, a frame at a time.
    pub(crate) seed: Option<u64>,
    pub(crate) window_documents: usize,
    pub(crate) epochs: Option<u64>,
    pub(crate) held_out: Option<HeldOutEnd>,
    /// Rows up to here were read before; file order only.
    pub(crate) after: Option<Place>,
    /// Files are read by row group.
    pub(crate) row_groups: bool,
}

impl ReaderOptions {
    /// The error, saying whose it is where there are several sources.
    fn whose(&self, mut error: FeedError) -> FeedError {
        if let Some(name) = &self.name
            && error.code != "ABORTED"
            && !error.message.contains(name.as_str())
        {
            error.message = format!("{name}: {}", error.message);
        }
        error
    }
}

/// Reads one source: asks for turns ahead of time and puts their rows into windows.
pub(crate) struct Reader {
    link: Input,
    inbox: Arc<Inbox>,
    options: ReaderOptions,
    ahead: Cursor,
    ahead_done: bool,
    taken: Cursor,
    shapes_asked: HashSet<u32>,
    /// Files without row groups of which a turn is on its way: only its answer says whether there is another.
    turn_awaited: HashSet<u32>,
    /// Rows still to come of each request, oldest first.
    outstanding: VecDeque<u64>,
    mean_bytes: f64,
    begin: Begin,
    /// That of the rows taken last.
    anchor: Option<Arc<Anchor>>,
    /// No row was taken since a window was closed.
    at_window_start: bool,
    filling: Vec<Document>,
    filling_bytes: u64,
    undrained: Arc<Undrained>,
    epoch_documents: u64,
    /// False after a resume in the middle of an epoch, until the next begins.
    epoch_is_whole: bool,
    out: Sender<Windows>,
}

struct Cursor {
    plan: Plan,
    position: Position,
    /// Rows already requested of the turn that `position` stands at (only `ahead` uses it).
    requested: u64,
}

impl Cursor {
    fn step(&mut self) -> Step {
        self.plan.step(&mut self.position)
    }

    fn advance(&mut self) {
        self.plan.advance(&mut self.position);
        self.requested = 0;
    }
}

/// Why a reader ends before its source does.
enum End {
    Failed(FeedError),
    /// The source is read to its last epoch, or nobody listens any more.
    Quiet,
}

impl From<FeedError> for End {
    fn from(error: FeedError) -> Self {
        End::Failed(error)
    }
}

impl Reader {
    pub(crate) fn new(
        link: Input,
        inbox: Arc<Inbox>,
        files: Arc<[String]>,
        options: ReaderOptions,
        from: Option<Begin>,
        out: Sender<Windows>,
    ) -> Self {
        let plan = || Plan::new(files.clone(), options.seed);
        let epoch_is_whole = from.is_none() && options.after.is_none();
        let begin = from.unwrap_or_else(|| match options.after {
            Some(place) => Begin::new(0, plan().at(place, options.row_groups)),
            None => Begin::new(0, plan().start(1)),
        });
        link.open(&inbox, begin.anchor.clone());
        let cursor = |position: &Position| Cursor { plan: plan(), position: position.clone(), requested: 0 };
        Self {
            undrained: Arc::new(Undrained::new(inbox.clone())),
            link,
            inbox,
            ahead: cursor(&begin.position),
            ahead_done: false,
            taken: cursor(&begin.position),
            options,
            shapes_asked: HashSet::new(),
            turn_awaited: HashSet::new(),
            outstanding: VecDeque::new(),
            mean_bytes: 0.0,
            begin,
            anchor: None,
            at_window_start: false,
            filling: Vec::new(),
            filling_bytes: 0,
            epoch_documents: 0,
            epoch_is_whole,
            out,
        }
    }

    /// Reads until the last epoch is over, the source fails or the receiver is gone.
    pub(crate) fn run(mut self) {
        let end = match self.read() {
            Err(End::Failed(error)) => Err(self.options.whose(error)),
            Ok(()) | Err(End::Quiet) => Ok(None),
        };
        // A receiver that is gone does not want to know either.
        let _ = self.out.send(end);
        self.link.forget(&self.inbox);
    }

    fn read(&mut self) -> Result<(), End> {
        loop {
            while self.taken.step() == Step::EpochEnd {
                self.end_epoch()?;
            }
            self.request_more();
            match self.inbox.take()? {
                Some(Answer::Shape { file, groups }) => self.learn_shape(file, groups)?,
                Some(Answer::Rows(rows)) => self.take_rows(&rows)?,
                // There is room for more.
                None => {}
            }
        }
    }

    /// Requests turns until a window's worth is on its way.
    fn request_more(&mut self) {
        while !self.ahead_done {
            let position = &self.ahead.position;
            let mut wanted = self.ahead.plan.upcoming(position, position.slots.len());
            wanted.extend(position.slots.iter().flatten().map(|slot| slot.file));
            wanted.retain(|&file| self.ahead.plan.shape(file).is_none());
            for file in wanted {
                self.ask_shape(file);
            }
            match self.ahead.step() {
                Step::NeedShape(file) => {
                    self.ask_shape(file);
                    if self.ahead.plan.shape(file).is_none() {
                        return;
                    }
                }
                Step::EpochEnd => {
                    let next = self.ahead.position.epoch + 1;
                    self.ahead_done = self.options.epochs.is_some_and(|last| next > last);
                    if !self.ahead_done && self.is_barren() {
                        return;
                    }
                    self.ahead.position = self.ahead.plan.start(next);
                }
                Step::Turn(turn) => {
                    if !self.may_request(turn) {
                        return;
                    }
                    self.request(turn);
                }
            }
        }
    }

    /// The epoch being taken has come to nothing so far: do not run on into epochs of nothing.
    fn is_barren(&self) -> bool {
        self.taken.position.epoch < self.ahead.position.epoch && self.epoch_documents == 0
    }

    fn ask_shape(&mut self, file: u32) {
        if self.options.row_groups {
            if self.shapes_asked.insert(file) {
                self.link.request(Request::File { file }, &self.inbox);
            }
        } else {
            self.ahead.plan.set_shape(file, Shape::Turns(None));
            self.taken.plan.set_shape(file, Shape::Turns(None));
        }
    }

    fn may_request(&self, turn: Turn) -> bool {
        if self.turn_awaited.contains(&turn.file) {
            return false;
        }
        let undrained = self.undrained.documents();
        if self.outstanding.is_empty() && undrained == 0 {
            return true;
        }
        let window = self.options.window_documents as u64;
        let limit = match self.options.seed {
            Some(_) => window + AHEAD_ROWS,
            None => window.min(PIECE_ROWS),
        };
        let next = (turn.rows - turn.row - self.ahead.requested).min(PIECE_ROWS);
        let rows = self.outstanding.iter().sum::<u64>() + next;
        let bytes = (self.filling_bytes + self.undrained.bytes()) as f64 + rows as f64 * self.mean_bytes;
        rows + self.filling.len() as u64 + undrained <= limit && bytes <= WINDOW_BYTES as f64 * 1.25
    }

    fn request(&mut self, turn: Turn) {
        let row = turn.row + self.ahead.requested;
        let rows = (turn.rows - row).min(PIECE_ROWS);
        self.link.request(Request::Read { file: turn.file, group: turn.group, row, rows }, &self.inbox);
        self.outstanding.push_back(rows);
        if let Some(Shape::Turns(None)) = self.ahead.plan.shape(turn.file) {
            self.turn_awaited.insert(turn.file);
        }
        if row + rows >= turn.rows {
            self.ahead.advance();
        } else {
            self.ahead.requested += rows;
        }
    }

    fn learn_shape(&mut self, file: u32, groups: Option<Vec<u64>>) -> Result<(), FeedError> {
        let Some(groups) = groups else {
            return Err(FeedError::protocol(format!(
                "file {file} has no row groups, but the dataset was to have them"
            )));
        };
        let shape = Shape::Groups(groups.into());
        self.ahead.plan.set_shape(file, shape.clone());
        self.taken.plan.set_shape(file, shape);
        Ok(())
    }

    fn take_rows(&mut self, rows: &Rows) -> Result<(), End> {
        let turn = match self.taken.step() {
            Step::Turn(turn) if (turn.file, turn.group, turn.row) == (rows.file, rows.group, rows.row) => {
                turn
            }
            step => {
                return Err(FeedError::protocol(format!(
                    "rows {} of file {}, group {} came where {step:?} was due",
                    rows.row, rows.file, rows.group
                ))
                .into());
            }
        };
        let count = rows.text.rows();
        let after = turn.row + count as u64;
        let grouped = matches!(self.taken.plan.shape(turn.file), Some(Shape::Groups(_)));
        if grouped && rows.end != (after == turn.rows) {
            return Err(FeedError::protocol(format!(
                "row group {} of file {} has {} rows, but its frames {} after {after}",
                turn.group,
                turn.file,
                turn.rows,
                if rows.end { "end" } else { "go on" }
            ))
            .into());
        }
        self.count_answer(rows);
        self.anchor.clone_from(&rows.anchor);
        if self.at_window_start {
            // The window before ended with the rows before: this anchor is nearer than what was known then.
            self.begin.anchor = rows.anchor.as_deref().cloned();
        }
        let end = rows.end;
        for index in 0..count {
            self.at_window_start = false;
            let slot = self.taken.position.slots[self.taken.position.turn].as_mut();
            slot.expect("step left an open file at the turn").row += 1;
            let last = end && index + 1 == count;
            if last {
                self.taken.advance();
            }
            let (text, row) = (rows.text.document(index), rows.row + index as u64);
            let place = Place { file: rows.file, group: rows.group, row };
            if text.is_empty() || self.is_left_out(place) {
                continue;
            }
            self.add(Document::new(text, rows.file, rows.group, row, self.inbox.gauge().clone()))?;
        }
        if end && count == 0 {
            self.taken.advance();
        }
        if self.options.seed.is_none() {
            self.close_window()?;
        }
        Ok(())
    }

    fn count_answer(&mut self, rows: &Rows) {
        if let Some(due) = self.outstanding.front_mut() {
            *due = due.saturating_sub(rows.text.rows() as u64);
            if rows.end || *due == 0 {
                self.outstanding.pop_front();
            }
        }
        if rows.end && self.turn_awaited.remove(&rows.file) && rows.eof {
            let shape = Shape::Turns(Some(rows.group + 1));
            self.ahead.plan.set_shape(rows.file, shape.clone());
            self.taken.plan.set_shape(rows.file, shape);
        }
    }

    /// Held out, or read before.
    fn is_left_out(&self, place: Place) -> bool {
        let held_out =
            self.options.held_out.map(|HeldOutEnd { file, group, row, .. }| Place { file, group, row });
        // Only an epoch's own rows were read before in it.
        let before = self.options.after.filter(|_| self.taken.position.epoch == 1);
        held_out.max(before).is_some_and(|last| place <= last)
    }

    fn add(&mut self, document: Document) -> Result<(), End> {
        let bytes = document.bytes().len();
        self.mean_bytes += (bytes as f64 - self.mean_bytes) * 0.01;
        self.epoch_documents += 1;
        self.filling_bytes += bytes as u64;
        self.filling.push(document);
        let full = self.filling.len() >= self.options.window_documents || self.filling_bytes >= WINDOW_BYTES;
        if full && self.options.seed.is_some() { self.close_window() } else { Ok(()) }
    }

    /// Hands on what was filled, if anything; the next window begins at the row after it.
    fn close_window(&mut self) -> Result<(), End> {
        let mut next = Begin::new(self.begin.window + 1, self.taken.position.clone());
        next.anchor = self.anchor.as_deref().cloned();
        if self.filling.is_empty() {
            return Ok(());
        }
        self.at_window_start = true;
        let begin = std::mem::replace(&mut self.begin, next);
        let mut documents = std::mem::take(&mut self.filling);
        let bytes = std::mem::take(&mut self.filling_bytes);
        if let Some(seed) = self.options.seed {
            let key = Key::Window { index: begin.window };
            let order = permutation(seed, begin.position.epoch, key, documents.len());
            let mut unordered: Vec<_> = documents.into_iter().map(Some).collect();
            documents = order.iter().map(|&i| unordered[i as usize].take().expect(PERMUTED)).collect();
            self.undrained.add(documents.len() as u64, bytes);
        }
        let undrained = self.options.seed.map(|_| self.undrained.clone());
        let window = Window { begin: Arc::new(begin), documents, undrained };
        self.out.send(Ok(Some(window))).map_err(|_| End::Quiet)
    }

    fn end_epoch(&mut self) -> Result<(), End> {
        self.close_window()?;
        let epoch = self.taken.position.epoch;
        let held_out = self.options.held_out.map_or(0, |end| end.documents);
        let name = self.options.name.as_deref().unwrap_or("the dataset");
        if self.epoch_is_whole && self.epoch_documents == 0 {
            let message = if held_out > 0 {
                format!("all {held_out} documents of {name} are held out; none is left to train on")
            } else {
                format!("{name} has no document with text")
            };
            return Err(FeedError::new(
                "DATASET_EMPTY",
                message,
                "check --split and --text-column, or hold out fewer documents (evaluation.documents)",
            )
            .into());
        }
        if self.epoch_is_whole && held_out * 20 > self.epoch_documents + held_out {
            let all = self.epoch_documents + held_out;
            return Err(FeedError::new(
                "CONFIG_INVALID",
                format!("evaluation.documents holds out {held_out} of the {all} documents of {name}, more than 5 %"),
                format!("set evaluation.documents to {} or less", all / 20),
            )
            .into());
        }
        if self.options.epochs.is_some_and(|last| epoch >= last) {
            return Err(End::Quiet);
        }
        let position = self.taken.plan.start(epoch + 1);
        self.taken.position = position.clone();
        self.begin = Begin::new(0, position);
        (self.anchor, self.at_window_start) = (None, false);
        self.epoch_documents = 0;
        self.epoch_is_whole = true;
        Ok(())
    }
}
