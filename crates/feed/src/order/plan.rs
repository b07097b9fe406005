use std::{collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Key, OPEN_FILES, SEGMENT, TURN_ROWS, permutation};
use crate::Place;

/// Where a reader stands between two rows. A few hundred bytes, part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The pass over the files, from 1.
    pub epoch: u64,
    /// The open files. A free place is taken by the next file when its turn comes.
    pub slots: Vec<Option<Slot>>,
    /// The place whose turn it is.
    pub turn: usize,
    /// How many files of the epoch's order have been opened.
    pub opened: u32,
}

/// Where an open file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slot {
    /// Index in the sorted list of files.
    pub file: u32,
    /// Index in the permuted order of the file's segments.
    pub segment: u32,
    /// Row group within the segment; for a file without row groups, the number of the turn.
    pub group: u32,
    /// Rows of this turn already taken.
    pub row: u64,
}

/// How a file is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Rows of each row group.
    Groups(Arc<[u64]>),
    /// Read from start to end; the number of turns once the end was seen.
    Turns(Option<u32>),
}

/// One turn: what to read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Index in the sorted list of files.
    pub file: u32,
    /// Row group of the file, or number of the turn.
    pub group: u32,
    /// First row within it.
    pub row: u64,
    /// Rows of the whole turn, those before `row` included; the most it can be for a file without row groups.
    pub rows: u64,
}

/// What a plan answers when asked for the next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Read this.
    Turn(Turn),
    /// The shape of this file has to be known first.
    NeedShape(u32),
    /// Every row of the epoch was planned.
    EpochEnd,
}

/// The order of one source.
#[derive(Debug)]
pub struct Plan {
    files: Arc<[String]>,
    /// `None`: plain file order, one file at a time.
    seed: Option<u64>,
    shapes: HashMap<u32, Shape>,
    order: (u64, Vec<u32>),
    segments: HashMap<u32, (u64, Vec<u32>)>,
}

impl Plan {
    /// A plan over files sorted by path; without a seed, in plain file order.
    pub fn new(files: Arc<[String]>, seed: Option<u64>) -> Self {
        Self { files, seed, shapes: HashMap::new(), order: (0, Vec::new()), segments: HashMap::new() }
    }

    /// Where an epoch (from 1) begins.
    pub fn start(&self, epoch: u64) -> Position {
        let places = if self.seed.is_some() { OPEN_FILES } else { 1 };
        Position { epoch, slots: vec![None; places], turn: 0, opened: 0 }
    }

    /// In file order: at the first epoch's row `place`, of a file with row groups or without.
    pub(crate) fn at(&self, Place { file, group, row }: Place, row_groups: bool) -> Position {
        let (segment, group) = if row_groups { (group / SEGMENT, group % SEGMENT) } else { (0, group) };
        Position {
            epoch: 1,
            slots: vec![Some(Slot { file, segment, group, row })],
            turn: 0,
            opened: file + 1,
        }
    }

    /// Learns the shape of a file.
    pub fn set_shape(&mut self, file: u32, shape: Shape) {
        self.shapes.insert(file, shape);
    }

    /// What is known of a file's shape.
    pub fn shape(&self, file: u32) -> Option<&Shape> {
        self.shapes.get(&file)
    }

    /// The files that will be opened next, nearest first.
    pub fn upcoming(&mut self, position: &Position, count: usize) -> Vec<u32> {
        let order = self.order(position.epoch);
        order.iter().skip(position.opened as usize).take(count).copied().collect()
    }

    /// The turn at `position`, whose place is opened if it is free; `position` then stands at that turn's first row.
    pub fn step(&mut self, position: &mut Position) -> Step {
        for _ in 0..position.slots.len() {
            loop {
                if position.slots[position.turn].is_none() {
                    let Some(&file) = self.order(position.epoch).get(position.opened as usize) else { break };
                    if !self.shapes.contains_key(&file) {
                        return Step::NeedShape(file);
                    }
                    position.opened += 1;
                    position.slots[position.turn] = Some(Slot { file, segment: 0, group: 0, row: 0 });
                }
                let slot = position.slots[position.turn].expect("filled just above");
                match self.shapes.get(&slot.file) {
                    None => return Step::NeedShape(slot.file),
                    Some(shape) if is_past_end(shape, slot) => position.slots[position.turn] = None,
                    Some(_) => return Step::Turn(self.turn(position.epoch, slot)),
                }
            }
            position.turn = (position.turn + 1) % position.slots.len();
        }
        Step::EpochEnd
    }

    /// Moves `position` past the turn it stands at.
    pub fn advance(&mut self, position: &mut Position) {
        let Some(slot) = &mut position.slots[position.turn] else { return };
        slot.row = 0;
        slot.group += 1;
        if let Some(Shape::Groups(rows)) = self.shapes.get(&slot.file)
            && (slot.group == SEGMENT || actual(self.segments.get(&slot.file), *slot) as usize >= rows.len())
        {
            slot.segment += 1;
            slot.group = 0;
        }
        if self.shapes.get(&slot.file).is_some_and(|shape| is_past_end(shape, *slot)) {
            position.slots[position.turn] = None;
        }
        position.turn = (position.turn + 1) % position.slots.len();
    }

    fn turn(&mut self, epoch: u64, slot: Slot) -> Turn {
        let Some(Shape::Groups(rows)) = self.shapes.get(&slot.file) else {
            return Turn { file: slot.file, group: slot.group, row: slot.row, rows: TURN_ROWS };
        };
        let rows = rows.clone();
        let count = segments(rows.len());
        if self.segments.get(&slot.file).is_none_or(|(known, _)| *known != epoch) {
            let order = match self.seed {
                Some(seed) => {
                    permutation(seed, epoch, Key::Segments { path: &self.files[slot.file as usize] }, count)
                }
                None => (0..count as u32).collect(),
            };
            self.segments.insert(slot.file, (epoch, order));
        }
        let group = actual(self.segments.get(&slot.file), slot);
        Turn { file: slot.file, group, row: slot.row, rows: rows[group as usize] }
    }

    fn order(&mut self, epoch: u64) -> &[u32] {
        if self.order.0 != epoch {
            let order = match self.seed {
                Some(seed) => permutation(seed, epoch, Key::Files, self.files.len()),
                None => (0..self.files.len() as u32).collect(),
            };
            self.order = (epoch, order);
            // One epoch's segment orders are enough: a file is open once an epoch.
            self.segments.retain(|_, (known, _)| *known == epoch);
        }
        &self.order.1
    }
}

/// The row group in the file that a slot stands at.
fn actual(order: Option<&(u64, Vec<u32>)>, slot: Slot) -> u32 {
    let segment =
        order.and_then(|(_, order)| order.get(slot.segment as usize)).copied().unwrap_or(slot.segment);
    segment * SEGMENT + slot.group
}

fn segments(groups: usize) -> usize {
    groups.div_ceil(SEGMENT as usize)
}

fn is_past_end(shape: &Shape, slot: Slot) -> bool {
    match shape {
        Shape::Groups(rows) => slot.segment as usize >= segments(rows.len()),
        Shape::Turns(turns) => turns.is_some_and(|turns| slot.group >= turns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(groups: &[usize], seed: Option<u64>) -> Plan {
        let files = (0..groups.len()).map(|i| format!("f{i}")).collect();
        let mut plan = Plan::new(files, seed);
        for (file, &count) in groups.iter().enumerate() {
            plan.set_shape(file as u32, Shape::Groups(vec![10; count].into()));
        }
        plan
    }

    fn epoch(plan: &mut Plan, epoch: u64) -> Vec<(u32, u32)> {
        let mut position = plan.start(epoch);
        let mut turns = Vec::new();
        while let Step::Turn(turn) = plan.step(&mut position) {
            turns.push((turn.file, turn.group));
            plan.advance(&mut position);
        }
        turns
    }

    #[test]
    fn every_row_group_of_every_file_comes_once_an_epoch() {
        let groups = [3, 0, 120, 1, 51, 50, 7];
        let mut all: Vec<_> =
            (0..groups.len()).flat_map(|f| (0..groups[f]).map(move |g| (f as u32, g as u32))).collect();
        all.sort_unstable();
        for seed in [None, Some(1), Some(2)] {
            let mut plan = plan(&groups, seed);
            for e in 1..=3 {
                let mut turns = epoch(&mut plan, e);
                if seed.is_none() {
                    assert_eq!(turns, all, "without a seed the order is the files'");
                }
                turns.sort_unstable();
                assert_eq!(turns, all);
            }
        }
    }

    #[test]
    fn turns_go_round_four_files_and_a_finished_file_is_replaced_in_its_place() {
        let mut plan = plan(&[2, 2, 2, 2, 2], Some(1));
        let turns = epoch(&mut plan, 1);
        let order = permutation(1, 1, Key::Files, 5);
        let files: Vec<u32> = turns.iter().map(|t| t.0).collect();
        let o = &order;
        assert_eq!(files, [o[0], o[1], o[2], o[3], o[0], o[1], o[2], o[3], o[4], o[4]]);
    }

    #[test]
    fn row_groups_of_a_segment_stay_in_order() {
        let mut plan = plan(&[130], Some(3));
        let turns = epoch(&mut plan, 1);
        let breaks = turns.windows(2).filter(|w| w[1].1 != w[0].1 + 1).count();
        assert!(breaks <= 2 && turns.len() == 130);
    }

    #[test]
    fn the_end_of_a_file_without_row_groups_may_be_learned_late() {
        let order = |learn_at_once: bool| {
            let mut plan = Plan::new((0..6).map(|i| format!("f{i}")).collect(), Some(9));
            (0..6).for_each(|f| plan.set_shape(f, Shape::Turns(None)));
            let mut position = plan.start(1);
            let mut turns = Vec::new();
            loop {
                let before = position.clone();
                let Step::Turn(turn) = plan.step(&mut position) else { break };
                // Every file has (number + 1) turns.
                let end = Shape::Turns(Some(turn.file + 1));
                if turn.group > turn.file {
                    plan.set_shape(turn.file, end);
                    position = before;
                    continue;
                }
                turns.push((turn.file, turn.group));
                if turn.group == turn.file && learn_at_once {
                    plan.set_shape(turn.file, end);
                }
                plan.advance(&mut position);
            }
            turns
        };
        assert_eq!(order(true), order(false));
        assert_eq!(order(true).len(), 21);
    }
}
