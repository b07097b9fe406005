//! Products on one thread, of which several have the same matrix on the right.

use super::{
    pack::pack_right,
    tile::{Ahead, Left, PANEL, Panel, STEP, Strips, strip_columns},
};
use crate::kernels::{Matrix, MatrixMut};
use pulp::Simd;
use std::{marker::PhantomData, mem::take};

/// A matrix on the right of products, readable in panels.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Right<'a> {
    strips: Strips,
    rows: usize,
    columns: usize,
    borrowed: PhantomData<&'a [f32]>,
}

/// Values of memory that [`Right::new`] takes for a matrix of this size: transposed, or row by row.
pub(in crate::kernels) fn right_len(rows: usize, columns: usize, transposed: bool) -> usize {
    if needs_packing(columns, transposed) { rows * columns.next_multiple_of(PANEL) } else { 0 }
}

/// Rows that are whole vectors can be read where they lie. Narrow vectors would wait for them: they take so little of a row that
/// rows a multiple of 4 KiB apart push each other out of the caches before the rest is read.
fn needs_packing(columns: usize, transposed: bool) -> bool {
    transposed || !columns.is_multiple_of(STEP) || strip_columns() < PANEL
}

impl<'a> Right<'a> {
    /// `b`, packed into the front of `memory`, which becomes what is left of it, where it cannot be read as it lies.
    ///
    /// # Panics
    /// When the memory does not suffice.
    pub(in crate::kernels) fn new(b: Matrix<'a>, memory: &mut &'a mut [f32]) -> Self {
        let (rows, columns) = (b.rows, b.columns);
        if !needs_packing(columns, b.column_stride != 1) {
            let strips = Strips { data: b.data, row: b.row_stride, columns: PANEL, strip: PANEL };
            return Self { strips, rows, columns, borrowed: PhantomData };
        }
        let (packed, rest) = take(memory).split_at_mut(rows * columns.next_multiple_of(PANEL));
        *memory = rest;
        let strip = strip_columns();
        for (panel, packed) in packed.chunks_exact_mut(rows * PANEL).enumerate() {
            pack_right(packed, b, (0, rows), panel * PANEL, strip);
        }
        let strips = Strips::packed(packed.as_ptr(), rows, strip);
        Self { strips, rows, columns, borrowed: PhantomData }
    }

    /// `rows` rows from `first` on.
    pub(in crate::kernels) fn rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows);
        let data = self.strips.data.wrapping_add(first * self.strips.row);
        Self { strips: Strips { data, ..self.strips }, rows, ..self }
    }

    /// The first `columns` columns.
    pub(in crate::kernels) fn columns(self, columns: usize) -> Self {
        assert!(columns <= self.columns);
        Self { columns, ..self }
    }
}

/// C = alpha·A·B, or C += alpha·A·B when `accumulate`, on this thread. A may be transposed; its columns are best not a
/// multiple of 4 KiB apart.
///
/// # Panics
/// When the dimensions do not agree.
#[inline(always)]
pub(in crate::kernels) fn multiply_here<S: Simd>(
    simd: S,
    c: MatrixMut<'_>,
    a: Matrix<'_>,
    b: Right<'_>,
    alpha: f32,
    accumulate: bool,
) {
    assert_eq!((c.rows, c.columns, a.columns), (a.rows, b.columns, b.rows), "dimensions of a product");
    for (panel, column) in (0..b.columns).step_by(PANEL).enumerate() {
        let panel = Panel {
            left: Left::Strided { data: a.data, row: a.row_stride, step: a.column_stride },
            right: b.strips.panel(panel),
            depth: b.rows,
            c: c.data.wrapping_add(column),
            c_row: c.row_stride,
            rows: c.rows,
            columns: PANEL.min(b.columns - column),
            alpha,
            accumulate,
        };
        // SAFETY: the constructors of the matrices checked that every element lies inside memory borrowed for their
        // lifetime, exclusively so for C. B is readable up to whole panels when it is packed. Otherwise the matrix that
        // it was made of has a multiple of `STEP` columns: what this panel needs, rounded up, is not beyond them.
        unsafe { panel.multiply(simd, &mut [Ahead::none(); 2]) };
    }
}
