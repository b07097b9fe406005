//! Copies of parts of a matrix in the order in which tiles read them.

use super::tile::{NARROW, PANEL, TILE};
use crate::kernels::Matrix;

/// Values between two packed tiles beyond their own: without them tiles would begin at multiples of 4 KiB and push
/// each other out of the first cache.
const GAP: usize = 16;

/// Columns that are fetched ahead of the one that is copied: in a wide matrix they lie pages apart.
const AHEAD: usize = 16;

/// Values in a cache line.
const LINE: usize = 16;

/// Values from one packed tile to the next.
pub(super) const fn tile_len(depth: usize) -> usize {
    depth * TILE + GAP
}

/// Packs rows [first, first + rows) of `a`, columns [from, from + depth), into tiles: a column of [`TILE`] values after
/// the other. What fills up the last tile is left as it was; nobody reads it.
///
/// The matrix must be a transposed one: of the others, tiles read the rows where they lie.
pub(super) fn pack_left(
    to: &mut [f32],
    a: Matrix<'_>,
    (first, rows): (usize, usize),
    (from, depth): (usize, usize),
) {
    assert!(a.row_stride == 1 && first + rows <= a.rows && from + depth <= a.columns);
    let tile_len = tile_len(depth);
    for column in 0..depth {
        // SAFETY: the column's rows lie inside the matrix and, `row_stride` being 1, next to each other.
        let values = unsafe {
            std::slice::from_raw_parts(a.data.add(first + (from + column) * a.column_stride), rows)
        };
        for line in (0..rows).step_by(LINE) {
            prefetch(values.as_ptr().wrapping_add(AHEAD * a.column_stride + line));
        }
        let (tiles, rest) = values.as_chunks::<TILE>();
        let mut at = column * TILE;
        for tile in tiles {
            to[at..at + TILE].copy_from_slice(tile);
            at += tile_len;
        }
        if !rest.is_empty() {
            to[at..at + rest.len()].copy_from_slice(rest);
        }
    }
}

/// Packs rows [from, from + depth) of `b`, columns [first, first + [`PANEL`]), in strips of so many columns, and of each a row
/// after the other; columns beyond the matrix are zero.
pub(super) fn pack_right(
    to: &mut [f32],
    b: Matrix<'_>,
    (from, depth): (usize, usize),
    first: usize,
    strip: usize,
) {
    assert!(from + depth <= b.rows && to.len() >= depth * PANEL);
    for (at, to) in to[..depth * PANEL].chunks_exact_mut(depth * strip).enumerate() {
        match strip {
            NARROW => pack_strip::<NARROW>(to, b, from, first + at * strip),
            _ => pack_strip::<PANEL>(to, b, from, first + at * strip),
        }
    }
}

/// Packs `STRIP` columns of `b` from `first` on, of as many rows from `from` on as there is room for.
fn pack_strip<const STRIP: usize>(to: &mut [f32], b: Matrix<'_>, from: usize, first: usize) {
    let columns = STRIP.min(b.columns.saturating_sub(first));
    if columns < STRIP {
        to.fill(0.0);
    }
    if columns == 0 {
        return;
    }
    let (rows, _) = to.as_chunks_mut::<STRIP>();
    let depth = rows.len();
    assert!(from + depth <= b.rows);
    if b.column_stride == 1 {
        for (row, to) in rows.iter_mut().enumerate() {
            // SAFETY: the row's columns lie inside the matrix and next to each other.
            let values = unsafe {
                std::slice::from_raw_parts(b.data.add((from + row) * b.row_stride + first), columns)
            };
            match <&[f32; STRIP]>::try_from(values) {
                Ok(values) => *to = *values,
                Err(_) => to[..columns].copy_from_slice(values),
            }
        }
        return;
    }
    let (row_blocks, row_rest) = rows.as_chunks_mut::<4>();
    let whole = columns / 4 * 4;
    for (block, rows) in row_blocks.iter_mut().enumerate() {
        for column in (0..whole).step_by(4) {
            // SAFETY: rows `4 · block` to `+ 3` and columns `column` to `+ 3` lie inside the part; `row_stride` is 1,
            // so that four rows of a column lie next to each other.
            unsafe {
                let values = b.data.add(from + 4 * block + (first + column) * b.column_stride);
                transpose(values, b.column_stride, rows.as_flattened_mut().as_mut_ptr().add(column), STRIP);
            }
        }
    }
    // What blocks of 4 × 4 leave over.
    let value = |row: usize, column: usize| b.value(from + row, first + column);
    for (row, to) in row_blocks.as_flattened_mut().iter_mut().enumerate() {
        for (column, to) in to.iter_mut().enumerate().take(columns).skip(whole) {
            *to = value(row, column);
        }
    }
    for (row, to) in row_rest.iter_mut().enumerate() {
        for (column, to) in to[..columns].iter_mut().enumerate() {
            *to = value(depth / 4 * 4 + row, column);
        }
    }
}

/// Four rows of four values, `from_stride` apart, become four columns: value (i, j) goes to `to + j · to_stride + i`.
///
/// # Safety
/// All sixteen values must be readable and writable.
#[inline(always)]
unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: promised by the caller; SSE is part of every x86-64.
    unsafe {
        use std::arch::x86_64::{
            _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(|row| _mm_loadu_ps(from.add(row * from_stride)));
        let (ab_low, cd_low) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        _mm_storeu_ps(to, _mm_movelh_ps(ab_low, cd_low));
        _mm_storeu_ps(to.add(to_stride), _mm_movehl_ps(cd_low, ab_low));
        _mm_storeu_ps(to.add(2 * to_stride), _mm_movelh_ps(ab_high, cd_high));
        _mm_storeu_ps(to.add(3 * to_stride), _mm_movehl_ps(cd_high, ab_high));
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: promised by the caller.
    unsafe {
        for row in 0..4 {
            for column in 0..4 {
                *to.add(column * to_stride + row) = *from.add(row * from_stride + column);
            }
        }
    }
}

/// Fetches the line of `at`. It is a hint: the address need not be valid.
#[inline(always)]
fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults; SSE is part of every x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
