//! Products of matrices in f32.
//!
//! C = A·B is made of panels of B, 64 columns wide and packed, and tiles of six rows of A (Goto and van de Geijn 2008).
//! Rows of A are read where they lie, unless A is a transposed matrix, whose rows would be scattered. Packed panels are
//! shared by all threads, which divide the rows of C.
//!
//! An element of C is a sum over blocks of the depth, whose bounds depend on the depth only, and within a block one
//! chain of fused multiplications and additions: neither the number of threads nor the width of vectors changes a bit
//! of it.

mod pack;
mod small;
mod tile;

use super::{Matrix, MatrixMut};
use crate::memory::zeroed;
use pack::{pack_left, pack_right, tile_len};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
pub(in crate::kernels) use small::{Right, multiply_here, right_len};
use std::{
    mem::take,
    sync::{Mutex, PoisonError},
};
pub(in crate::kernels) use tile::TILE;
use tile::{Ahead, Left, NARROW, PANEL, Panel, Strips, strip_columns};

/// The longest depth that is summed in registers at once: a panel of it (128 KiB) stays in the second cache.
const DEPTH: usize = 512;

/// Rows of C that a task takes at most, so that what it reads of A, 384 KiB, stays in the second cache beside a panel.
const ROWS: usize = 192;

/// The same for vectors of less than 512 bits, which mostly come with a second cache of 512 KiB or less.
const NARROW_ROWS: usize = 96;

/// Rows that a task takes at least, where there are enough: a panel is read again for each.
const LEAST_ROWS: usize = 3 * TILE;

/// Values of B that are packed at a time at most, 4 MiB.
const PACKED: usize = 1 << 20;

/// Values in a cache line; panels begin at one.
const LINE: usize = 16;

/// Memory for packing, kept between products. Products that come at the same time have memory of their own.
static MEMORY: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// Values that the packed tiles of a thread take.
const TILES: usize = ROWS.div_ceil(TILE) * tile_len(DEPTH);

/// C = alpha·A·B, or C += alpha·A·B when `accumulate`; on all threads of the rayon pool when `parallel`.
///
/// # Panics
/// When the dimensions do not agree.
pub fn multiply(
    c: MatrixMut<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    alpha: f32,
    accumulate: bool,
    parallel: bool,
) {
    assert_eq!((c.rows, c.columns, a.columns), (a.rows, b.columns, b.rows), "dimensions of a product");
    if c.rows == 0 || c.columns == 0 {
        return;
    }
    if a.columns == 0 {
        for row in 0..if accumulate { 0 } else { c.rows } {
            // SAFETY: a row of C, which is borrowed for us alone.
            unsafe { std::slice::from_raw_parts_mut(c.data.add(row * c.row_stride), c.columns) }.fill(0.0);
        }
        return;
    }
    let mut memory = MEMORY.try_lock().map(|mut kept| take(&mut *kept)).unwrap_or_default();
    multiply_in(&mut memory, &c, a, b, alpha, accumulate, parallel);
    if let Ok(mut kept) = MEMORY.try_lock()
        && kept.len() < memory.len()
    {
        *kept = memory;
    }
}

/// `multiply` for dimensions above zero that agree; packs into `memory`, which grows to what it needs.
fn multiply_in(
    memory: &mut Vec<f32>,
    c: &MatrixMut<'_>,
    a: Matrix<'_>,
    b: Matrix<'_>,
    alpha: f32,
    accumulate: bool,
    parallel: bool,
) {
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let depth = block_depth(a.columns);
    // Columns whose panels, one block deep, are packed at once.
    let columns = PACKED / depth / PANEL * PANEL;
    for first in (0..c.columns).step_by(columns) {
        let columns = columns.min(c.columns - first);
        let panels = columns.div_ceil(PANEL);
        let at_once = depth * (PACKED / (panels * PANEL * depth)).max(1);
        for from in (0..a.columns).step_by(at_once) {
            let until = a.columns.min(from + at_once);
            let len = panels * PANEL * (until - from);
            if memory.len() < LINE + len + threads * TILES {
                let len = LINE + len + threads * TILES;
                *memory = zeroed(len, 0.0).unwrap_or_else(|error| panic!("memory for packing: {error}"));
            }
            let aligned = memory.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
            let (packed, tiles) = memory[aligned..].split_at_mut(len);
            // A thread holds its tiles only while it computes, so no two wait for one.
            let tiles: Vec<_> = tiles.chunks_exact_mut(TILES).map(Mutex::new).collect();
            let part = Part { a, b, first, columns, from, until, depth, strip: strip_columns() };
            part.pack(packed, threads);
            part.multiply(c, packed, &tiles, alpha, accumulate || from > 0, threads);
        }
    }
}

/// The most bytes that packing takes in products on so many threads.
pub fn packing_bytes(threads: usize) -> usize {
    4 * (LINE + PACKED + threads * TILES)
}

/// Rows of C that a task takes: whole tiles, `most` at most, and as many as leave no thread with much more than its share.
fn task_rows(rows: usize, threads: usize, most: usize) -> usize {
    if threads == 1 {
        return most;
    }
    let most = rows.div_ceil(threads).next_multiple_of(TILE).min(most);
    // What the thread with most to do has, where tasks are dealt out evenly and the last is the shortest.
    let load = |task: usize| {
        let (tasks, last) = (rows.div_ceil(task), (rows - 1) % task + 1);
        tasks / threads * task + [0, last, task][(tasks % threads).min(2)]
    };
    let candidates = (LEAST_ROWS.min(most)..=most).rev().step_by(TILE);
    candidates.min_by_key(|&task| load(task).max(rows.div_ceil(threads) * 33 / 32)).unwrap_or(most)
}

/// The depth of a block: all of a size, as few as can be.
fn block_depth(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(DEPTH)).next_multiple_of(LINE)
}

/// The columns [first, first + columns) of a product, over the depth [from, until) in blocks of `depth`.
#[derive(Clone, Copy)]
struct Part<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    first: usize,
    columns: usize,
    from: usize,
    until: usize,
    depth: usize,
    /// Columns of the strips that panels are packed in.
    strip: usize,
}

impl Part<'_> {
    fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Start and length of each block of the depth.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Self { from, until, depth, .. } = *self;
        (from..until).step_by(depth).map(move |from| (from, depth.min(until - from)))
    }

    /// What of A is read after this block of these rows: their next block, or the first one of the rows after them, which
    /// mostly are the same thread's next.
    fn ahead(&self, (first, rows): (usize, usize), (from, depth): (usize, usize)) -> Ahead {
        let (first, from) = match from + depth < self.until {
            true => (first, from + depth),
            false => (first + rows, self.from),
        };
        let (rows, depth) = (rows.min(self.a.rows - first), self.depth.min(self.until - from));
        let data = self.a.data.wrapping_add(first * self.a.row_stride + from * self.a.column_stride);
        match self.a.column_stride {
            1 => Ahead::new(data, rows, depth, self.a.row_stride),
            stride => Ahead::new(data, depth, rows, stride),
        }
    }

    /// Fills `packed` with the part's panels: all of the first block of the depth, then of the next.
    fn pack(&self, packed: &mut [f32], threads: usize) {
        let pack = |(block, block_packed): (usize, &mut [f32])| {
            let (from, depth) =
                (self.from + block * self.depth, block_packed.len() / (self.panels() * PANEL));
            if self.b.column_stride == 1 && self.columns.is_multiple_of(PANEL) {
                return match self.strip {
                    NARROW => self.pack_rows::<NARROW>(block_packed, from, threads),
                    _ => self.pack_rows::<PANEL>(block_packed, from, threads),
                };
            }
            let panel = |(panel, packed): (usize, &mut [f32])| {
                pack_right(packed, self.b, (from, depth), self.first + panel * PANEL, self.strip);
            };
            match threads {
                1 => block_packed.chunks_mut(depth * PANEL).enumerate().for_each(panel),
                _ => block_packed.par_chunks_mut(depth * PANEL).enumerate().for_each(panel),
            }
        };
        let block = self.panels() * PANEL * self.depth;
        match threads {
            1 => packed.chunks_mut(block).enumerate().for_each(pack),
            _ => packed.par_chunks_mut(block).enumerate().for_each(pack),
        }
    }

    /// The strips of a block, whose depth begins at `from`, out of rows as they lie: each is read in one go, where a strip
    /// after the other would read a little of every row.
    fn pack_rows<const STRIP: usize>(&self, packed: &mut [f32], from: usize, threads: usize) {
        let strips = self.panels() * (PANEL / STRIP);
        let depth = packed.len() / (strips * STRIP);
        assert!(from + depth <= self.b.rows && self.first + strips * STRIP <= self.b.columns);
        let packed = Packed::<STRIP>(packed.as_mut_ptr().cast());
        let task = |first: usize| {
            for row in first..depth.min(first + PACK_ROWS) {
                let (values, to) = (self.row_of_b::<STRIP>(from + row), packed.row(row));
                for strip in 0..strips {
                    // SAFETY: the row has the columns of all strips next to each other. Row `row` of every strip, which has
                    // `depth` rows, is written by this task alone.
                    unsafe { *to.add(strip * depth) = *values.add(strip) };
                }
            }
        };
        match threads {
            1 => (0..depth).step_by(PACK_ROWS).for_each(task),
            _ => (0..depth).into_par_iter().step_by(PACK_ROWS).for_each(task),
        }
    }

    /// The part's columns of a row of B that lie next to each other.
    fn row_of_b<const STRIP: usize>(&self, row: usize) -> *const [f32; STRIP] {
        self.b.data.wrapping_add(row * self.b.row_stride + self.first).cast()
    }

    fn multiply(
        &self,
        c: &MatrixMut<'_>,
        packed: &[f32],
        tiles: &[Mutex<&mut [f32]>],
        alpha: f32,
        accumulate: bool,
        threads: usize,
    ) {
        let rows = task_rows(c.rows, threads, if self.strip == NARROW { NARROW_ROWS } else { ROWS });
        let task = |first: usize| {
            let thread = rayon::current_thread_index().unwrap_or(0) % threads;
            // A panic in another product leaves tiles that nobody reads again.
            let mut tiles = tiles[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let rows = rows.min(c.rows - first);
            let rows = Rows { part: self, c, packed, alpha, accumulate, first, rows, tiles: &mut tiles };
            Arch::new().dispatch(rows);
        };
        match threads {
            1 => (0..c.rows).step_by(rows).for_each(task),
            _ => (0..c.rows).into_par_iter().step_by(rows).with_max_len(1).for_each(task),
        }
    }
}

/// Rows of B that a task packs: each is read in one go.
const PACK_ROWS: usize = 32;

/// Rows of a block's strips, of which tasks write different ones.
struct Packed<const STRIP: usize>(*mut [f32; STRIP]);

// SAFETY: the pointer is only used for rows that belong to the using task alone; see its use.
unsafe impl<const STRIP: usize> Sync for Packed<STRIP> {}

impl<const STRIP: usize> Packed<STRIP> {
    fn row(&self, row: usize) -> *mut [f32; STRIP] {
        self.0.wrapping_add(row)
    }
}

/// A task: some rows of C.
struct Rows<'a> {
    part: &'a Part<'a>,
    c: &'a MatrixMut<'a>,
    packed: &'a [f32],
    alpha: f32,
    accumulate: bool,
    first: usize,
    rows: usize,
    tiles: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { part, c, mut packed, alpha, accumulate, first, rows, tiles } = self;
        let (a, first_block) = (part.a, part.from);
        for (from, depth) in part.blocks() {
            let mut ahead = [part.ahead((first, rows), (from, depth)), Ahead::none()];
            let left = if a.column_stride == 1 {
                // SAFETY: the first row of the task and the first column of the block lie inside the matrix.
                let data = unsafe { a.data.add(first * a.row_stride + from) };
                Left::Strided { data, row: a.row_stride, step: 1 }
            } else {
                pack_left(tiles, a, (first, rows), (from, depth));
                Left::Packed { data: tiles.as_ptr(), tile: tile_len(depth) }
            };
            let (block, rest) = packed.split_at(part.panels() * PANEL * depth);
            packed = rest;
            for (panel, right) in block.chunks_exact(depth * PANEL).enumerate() {
                let column = part.first + panel * PANEL;
                // The panel that is read next, be it of the next block.
                ahead[1] = Ahead::new(right.as_ptr_range().end, 1, right.len(), 0);
                let panel = Panel {
                    left,
                    right: Strips::packed(right.as_ptr(), depth, part.strip),
                    depth,
                    // SAFETY: the task's first row and the panel's first column lie inside C.
                    c: unsafe { c.data.add(first * c.row_stride + column) },
                    c_row: c.row_stride,
                    rows,
                    columns: PANEL.min(c.columns - column),
                    alpha,
                    accumulate: accumulate || from > first_block,
                };
                // SAFETY: A's rows lie inside the matrix or were packed, the panel is `depth · PANEL` long, and the
                // task is the only one that has these rows of C, which the caller of the product has for itself alone.
                unsafe { panel.multiply(simd, &mut ahead) };
            }
        }
    }
}

#[cfg(test)]
mod tests;
