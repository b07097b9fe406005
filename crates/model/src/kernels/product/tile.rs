//! The innermost loop of a product: a few rows of C times one panel of the right matrix, in registers.

use pulp::{Arch, Simd, WithSimd};

/// Columns of a panel: four of the widest vectors.
pub(super) const PANEL: usize = 64;

/// Columns of a strip, for vectors of less than 512 bits: what a tile reads of the right matrix lies in one piece then, where
/// rows of a whole panel would crowd a few sets of the first cache.
pub(super) const NARROW: usize = 16;

/// Columns of the strips that packed panels consist of on this processor: [`NARROW`], or a whole [`PANEL`].
pub(super) fn strip_columns() -> usize {
    struct Lanes;
    impl WithSimd for Lanes {
        type Output = usize;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    if Arch::new().dispatch(Lanes) == 16 { PANEL } else { NARROW }
}

/// Columns that a panel's width is rounded up to when it is no more than that: two of the widest vectors.
pub(super) const STEP: usize = 32;

/// Rows of a full tile. 6 × 4 vectors of sums keep both multipliers of a core busy and leave registers for what is
/// multiplied; six rows at a stride of 4 KiB still fit the eight ways of a first cache.
pub(in crate::kernels) const TILE: usize = 6;

/// Rows of the left matrix, for a depth of k.
#[derive(Clone, Copy)]
pub(super) enum Left {
    /// Value (i, l) at `data + i · row + l · step`.
    Strided { data: *const f32, row: usize, step: usize },
    /// Tiles of [`TILE`] rows `tile` apart; value (i, l) of one at `l · TILE + i`.
    Packed { data: *const f32, tile: usize },
}

/// Lines of memory that a later task reads, fetched into the second cache one by one while tiles compute.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// A run of consecutive lines begins here, and the next one `stride` values later.
    data: *const f32,
    stride: usize,
    /// Lines of a run, and the next one's place in it.
    lines: usize,
    line: usize,
    /// Runs that are left.
    runs: usize,
}

impl Ahead {
    /// Nothing to fetch.
    pub(super) fn none() -> Self {
        Self::new(std::ptr::null(), 0, 0, 0)
    }

    /// `runs` runs of `values` values, `stride` values apart.
    pub(super) fn new(data: *const f32, runs: usize, values: usize, stride: usize) -> Self {
        Self { data, stride, lines: values.div_ceil(LINE), line: 0, runs }
    }

    /// Fetches one line, if any is left. It is a hint: the address need not be valid.
    #[inline(always)]
    fn fetch(&mut self) {
        if self.runs == 0 {
            return;
        }
        prefetch_later(self.data.wrapping_add(self.line * LINE));
        self.line += 1;
        if self.line == self.lines {
            (self.line, self.runs) = (0, self.runs - 1);
            self.data = self.data.wrapping_add(self.stride);
        }
    }
}

/// Steps of the depth for which one line is fetched ahead.
const STEPS_A_LINE: usize = 8;

/// Values in a cache line.
const LINE: usize = 16;

/// The right matrix, in strips of so many columns; value (l, j) of one at `l · row + j`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strips {
    pub(super) data: *const f32,
    /// From a row to the next.
    pub(super) row: usize,
    pub(super) columns: usize,
    /// From a strip to the next.
    pub(super) strip: usize,
}

impl Strips {
    /// Packed panels of `depth` rows.
    pub(super) fn packed(data: *const f32, depth: usize, columns: usize) -> Self {
        Self { data, row: columns, columns, strip: depth * columns }
    }

    /// Where a column begins. What a tile reads from there on lies in one strip.
    fn column(self, column: usize) -> *const f32 {
        self.data.wrapping_add(column / self.columns * self.strip + column % self.columns)
    }

    /// From where a panel begins.
    pub(super) fn panel(self, panel: usize) -> Self {
        Self { data: self.data.wrapping_add(panel * (PANEL / self.columns) * self.strip), ..self }
    }
}

/// C (+)= alpha · A · B for `rows` rows and at most [`PANEL`] columns.
pub(super) struct Panel {
    pub(super) left: Left,
    pub(super) right: Strips,
    pub(super) depth: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) alpha: f32,
    pub(super) accumulate: bool,
}

impl Panel {
    /// Each element of C is the sum over the depth in its order, from zero and in one accumulator, so it does not depend
    /// on the tile that it falls into.
    ///
    /// # Safety
    /// `left` must be readable for `rows` and `depth`, `right` for `depth` rows of `columns` values rounded up to
    /// [`STEP`], to [`PANEL`] from [`STEP`] + 1 on, in strips no narrower than a tile, and C's elements be writable and used by
    /// no one else. A tile is [`NARROW`] columns wide at most, or a [`PANEL`] where vectors have 512 bits.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(&self, simd: S, ahead: &mut [Ahead; 2]) {
        // SAFETY: promised by the caller.
        unsafe {
            // Vectors of 512 bits come with 32 registers, narrower ones mostly with 16.
            match S::F32_LANES {
                16 if self.columns > 2 * S::F32_LANES => self.rows::<S, 4>(simd, ahead),
                _ => self.rows::<S, 2>(simd, ahead),
            }
        }
    }

    /// All rows, `VECTORS` vectors of columns at a time.
    ///
    /// # Safety
    /// As [`Panel::multiply`].
    #[inline(always)]
    unsafe fn rows<S: Simd, const VECTORS: usize>(&self, simd: S, ahead: &mut [Ahead; 2]) {
        for column in (0..self.columns).step_by(VECTORS * S::F32_LANES) {
            let (mut row, right) = (0, self.right.column(column));
            // SAFETY: rows and columns stay within what the caller promised, and `right` is where `column` begins.
            unsafe {
                while row + TILE <= self.rows {
                    self.tile::<S, VECTORS, TILE>(simd, row, column, right, ahead);
                    row += TILE;
                }
                if row + 4 <= self.rows {
                    self.tile::<S, VECTORS, 4>(simd, row, column, right, ahead);
                    row += 4;
                }
                if row + 2 <= self.rows {
                    self.tile::<S, VECTORS, 2>(simd, row, column, right, ahead);
                    row += 2;
                }
                if row < self.rows {
                    self.tile::<S, VECTORS, 1>(simd, row, column, right, ahead);
                }
            }
        }
    }

    /// `ROWS` rows from `row` on, of `VECTORS` vectors of columns from `column` on, of which the right matrix has the first row at
    /// `right`.
    ///
    /// # Safety
    /// As [`Panel::multiply`], and `row + ROWS` rows must be in the panel.
    #[inline(always)]
    unsafe fn tile<S: Simd, const VECTORS: usize, const ROWS: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
        mut right: *const f32,
        ahead: &mut [Ahead; 2],
    ) {
        let lanes = S::F32_LANES;
        debug_assert!(VECTORS * lanes <= self.right.columns, "a tile lies in one strip");
        // SAFETY: `row + ROWS` and `column` are within the panel. The right matrix is read up to a multiple of
        // `VECTORS · lanes`, which the caller promised; C is written up to `columns` only.
        unsafe {
            let c = self.c.add(row * self.c_row + column);
            for i in 0..ROWS {
                for j in 0..VECTORS {
                    prefetch_for_writing(c.wrapping_add(i * self.c_row + j * lanes));
                }
            }
            let (mut left, left_row, left_step) = match self.left {
                Left::Strided { data, row: stride, step } => (data.add(row * stride), stride, step),
                Left::Packed { data, tile } => (data.add(row / TILE * tile + row % TILE), 1, TILE),
            };
            let mut sums = [[simd.splat_f32s(0.0); VECTORS]; ROWS];
            let mut depth = self.depth;
            while depth > 0 {
                let steps = depth.min(STEPS_A_LINE);
                depth -= steps;
                ahead.iter_mut().for_each(Ahead::fetch);
                // A number of steps that is known here makes one piece of code without a counter: integer instructions would
                // take the place of vectors' on their common ports.
                if steps == STEPS_A_LINE {
                    for _ in 0..STEPS_A_LINE {
                        sums = add_step(simd, sums, left_row, (left, right));
                        (left, right) = (left.wrapping_add(left_step), right.wrapping_add(self.right.row));
                    }
                    continue;
                }
                for _ in 0..steps {
                    sums = add_step(simd, sums, left_row, (left, right));
                    // The last step ends beyond the matrix, where a pointer may point but not be read.
                    (left, right) = (left.wrapping_add(left_step), right.wrapping_add(self.right.row));
                }
            }
            let alpha = simd.splat_f32s(self.alpha);
            let columns = (self.columns - column).min(VECTORS * lanes);
            for (i, sums) in sums.into_iter().enumerate() {
                let mut rest = std::slice::from_raw_parts_mut(c.add(i * self.c_row), columns);
                if columns == VECTORS * lanes {
                    for (j, sum) in sums.into_iter().enumerate() {
                        let at = rest.as_mut_ptr().add(j * lanes).cast::<S::f32s>();
                        at.write_unaligned(match self.accumulate {
                            true => simd.mul_add_e_f32s(alpha, sum, at.read_unaligned()),
                            false => simd.mul_f32s(alpha, sum),
                        });
                    }
                    continue;
                }
                for sum in sums {
                    let (part, after) = rest.split_at_mut(rest.len().min(lanes));
                    let value = match self.accumulate {
                        true => simd.mul_add_e_f32s(alpha, sum, simd.partial_load_f32s(part)),
                        false => simd.mul_f32s(alpha, sum),
                    };
                    simd.partial_store_f32s(part, value);
                    rest = after;
                }
            }
        }
    }
}

/// Adds one step of the depth to the sums of a tile: values of the left matrix, `left_row` apart, times one row of the right.
///
/// # Safety
/// `left` must be readable for all rows and `right` for `VECTORS` vectors.
#[inline(always)]
unsafe fn add_step<S: Simd, const VECTORS: usize, const ROWS: usize>(
    simd: S,
    mut sums: [[S::f32s; VECTORS]; ROWS],
    left_row: usize,
    (left, right): (*const f32, *const f32),
) -> [[S::f32s; VECTORS]; ROWS] {
    // SAFETY: promised by the caller.
    unsafe {
        let mut values = [simd.splat_f32s(0.0); VECTORS];
        for (j, value) in values.iter_mut().enumerate() {
            *value = right.add(j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
        }
        for (i, sums) in sums.iter_mut().enumerate() {
            let factor = simd.splat_f32s(*left.add(i * left_row));
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = simd.mul_add_e_f32s(factor, value, *sum);
            }
        }
        sums
    }
}

/// Fetches the line of `at` while the sums are made. It is a hint: the address need not be valid.
#[inline(always)]
fn prefetch_for_writing(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Fetches the line of `at` into the second cache. It is a hint: the address need not be valid.
#[inline(always)]
fn prefetch_later(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
