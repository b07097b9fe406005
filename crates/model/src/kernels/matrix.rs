//! Matrices of f32 in memory that others own.

use std::marker::PhantomData;

/// A matrix to read: values at `row · row_stride + column · column_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) data: *const f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
    borrowed: PhantomData<&'a [f32]>,
}

/// A matrix to write, like [`Matrix`].
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(super) data: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix without gaps.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    ///
    /// # Panics
    /// When the slice is too short.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row_stride), "matrix of {rows}×{columns} beyond its slice");
        Self { data: data.as_ptr(), rows, columns, row_stride, column_stride: 1, borrowed: PhantomData }
    }

    /// The same values with rows and columns exchanged; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `rows` rows from `row` on, and of these `columns` columns from `column` on.
    pub(super) fn part(self, (row, rows): (usize, usize), (column, columns): (usize, usize)) -> Self {
        assert!(row + rows <= self.rows && column + columns <= self.columns);
        let data = self.data.wrapping_add(row * self.row_stride + column * self.column_stride);
        Self { data, rows, columns, ..self }
    }

    /// Row `row` of a matrix that is not transposed.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows && self.column_stride == 1);
        // SAFETY: the constructors checked that every row lies inside the borrowed slice.
        unsafe { std::slice::from_raw_parts(self.data.add(row * self.row_stride), self.columns) }
    }

    /// The value in `row` and `column`.
    pub(super) fn value(&self, row: usize, column: usize) -> f32 {
        assert!(row < self.rows && column < self.columns);
        // SAFETY: the constructors checked that every element lies inside the borrowed slice.
        unsafe { *self.data.add(row * self.row_stride + column * self.column_stride) }
    }
}

// SAFETY: a matrix to read is a borrowed slice, which threads may share.
unsafe impl Sync for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Send for Matrix<'_> {}
// SAFETY: a shared reference to a matrix to write gives nobody a way to write but unsafe code, which has to see to it
// that threads write to different rows.
unsafe impl Sync for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// A row-major matrix without gaps.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows begin `row_stride` apart.
    ///
    /// # Panics
    /// When the slice is too short or rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, row_stride), "matrix of {rows}×{columns} beyond its slice");
        Self { data: data.as_mut_ptr(), rows, columns, row_stride, borrowed: PhantomData }
    }

    /// `rows` rows from `first` on.
    pub(super) fn rows(&mut self, first: usize, rows: usize) -> MatrixMut<'_> {
        assert!(first + rows <= self.rows);
        MatrixMut { data: self.data.wrapping_add(first * self.row_stride), rows, ..*self }
    }

    /// A matrix inside memory that other threads use elsewhere: the columns between its rows are not touched.
    ///
    /// # Safety
    /// For `'a`, each `data + row · row_stride + column` must be valid for reads and writes and used by no one else.
    pub(super) unsafe fn scattered(data: *mut f32, rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows <= 1 || row_stride >= columns);
        Self { data, rows, columns, row_stride, borrowed: PhantomData }
    }
}

fn fits(len: usize, rows: usize, columns: usize, row_stride: usize) -> bool {
    rows == 0 || columns == 0 || (row_stride >= columns && (rows - 1) * row_stride + columns <= len)
}
