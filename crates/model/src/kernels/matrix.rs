//! Products of matrices in f32, through the `gemm` crate.

use std::marker::PhantomData;

/// A matrix to read: values at `row · row_stride + column · column_stride`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    data: *const f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
    borrowed: PhantomData<&'a [f32]>,
}

/// A matrix to write, like [`Matrix`].
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
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
}

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
    let parallelism = match parallel && rayon::current_num_threads() > 1 {
        true => gemm::Parallelism::Rayon(0),
        false => gemm::Parallelism::None,
    };
    // SAFETY: the constructors checked, or their callers promised, that every element of each matrix lies inside
    // memory borrowed for its lifetime, exclusively so for C; rows of C do not overlap.
    unsafe {
        gemm::gemm(
            c.rows,
            c.columns,
            a.columns,
            c.data,
            1,
            c.row_stride as isize,
            accumulate,
            a.data,
            a.column_stride as isize,
            a.row_stride as isize,
            b.data,
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// The most bytes that packing takes in a product with up to `columns` columns on the right; `threads` work on it.
///
/// `gemm` packs a panel of at most 512 rows of the right matrix that fills the last cache, and on each thread a panel
/// of the left one in memory of the second cache's size.
pub fn packing_bytes(columns: usize, threads: usize) -> usize {
    let [_, second, last] = *gemm_common::cache::CACHE_INFO;
    (columns * 512 * 4).min(last.cache_bytes) + threads * second.cache_bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    #[test]
    fn products_agree_with_the_definition_for_every_layout() {
        let mut random = Random::stream(1, "products");
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 32, 65)] {
            let a: Vec<f32> = (0..m * k).map(|_| random.normal() as f32).collect();
            let b: Vec<f32> = (0..n * k).map(|_| random.normal() as f32).collect();
            let (stride, before) = (n + 3, 0.25);
            let mut c = vec![before; m * stride];
            let (a_mk, b_kn) = (Matrix::new(&a, m, k), Matrix::new(&b, n, k).transposed());
            multiply(MatrixMut::strided(&mut c, m, n, stride), a_mk, b_kn, 0.5, true, false);
            for i in 0..m {
                for j in 0..n {
                    let product: f32 = (0..k).map(|l| a[i * k + l] * b[j * k + l]).sum();
                    assert!((c[i * stride + j] - (before + 0.5 * product)).abs() < 1e-4);
                }
                assert_eq!(&c[i * stride + n..(i + 1) * stride], &[before; 3]);
            }
        }
    }
}
