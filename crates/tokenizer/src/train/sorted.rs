//! Words in the order of their bytes, merged from tables and files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::table::SortedTable;
use super::words_file::WordsReader;
use crate::error::TokenizerError;

/// Words in ascending order, each once.
pub(super) enum Words {
    Table(SortedTable),
    File(Box<WordsReader>),
}

impl Words {
    /// Puts the next word into `word` and returns its count; none at the end.
    fn next(&mut self, word: &mut Vec<u8>) -> Result<Option<u64>, TokenizerError> {
        match self {
            Words::Table(table) => Ok(table.next(word)),
            Words::File(reader) => reader.next(word),
        }
    }
}

/// Calls `word` with every word of all `parts` and the sum of its counts, in ascending order.
pub(super) fn merge(
    mut parts: Vec<Words>,
    mut word: impl FnMut(&[u8], u64) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut heap = BinaryHeap::with_capacity(parts.len());
    for (at, part) in parts.iter_mut().enumerate() {
        let mut first = Vec::new();
        if let Some(count) = part.next(&mut first)? {
            heap.push(Reverse((first, at, count)));
        }
    }
    let (mut current, mut sum) = (Vec::new(), 0u64);
    while let Some(mut top) = heap.peek_mut() {
        let Reverse((next, at, count)) = &mut *top;
        if *next != current {
            if sum > 0 {
                word(&current, sum)?;
            }
            std::mem::swap(&mut current, next);
            sum = 0;
        }
        sum = sum.saturating_add(*count);
        match parts[*at].next(next)? {
            Some(more) => *count = more,
            None => {
                PeekMut::pop(top);
            }
        }
    }
    if sum > 0 { word(&current, sum) } else { Ok(()) }
}
