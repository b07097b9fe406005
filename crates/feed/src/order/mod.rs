//! Which row comes when: a pure function of the file list, the seed and the epoch.
//!
//! Files sorted by path are permuted by (seed, epoch); up to four are open; each file's row groups form segments of 50,
//! permuted by (seed, epoch, path), row groups in order within; turns go round the open files, one row group each; a
//! file without row groups is one segment and a turn is 1,000 of its rows; when a file is finished the next one takes
//! its place. A window of documents is permuted by (seed, epoch, window).

mod permute;
mod plan;

pub use permute::{Key, permutation};
pub use plan::{Plan, Position, Shape, Slot, Step, Turn};

/// Files that are open at a time.
pub const OPEN_FILES: usize = 4;
/// Row groups that stay together.
pub const SEGMENT: u32 = 50;
/// Rows of a turn of a file without row groups.
pub const TURN_ROWS: u64 = 1000;
