use super::*;
use crate::Random;

/// How a matrix lies in memory.
#[derive(Debug, Clone, Copy)]
enum Layout {
    Rows,
    Gaps,
    Transposed,
}

/// A random matrix and its values row by row.
struct Operand {
    memory: Vec<f32>,
    rows: usize,
    columns: usize,
    layout: Layout,
}

impl Operand {
    fn new(random: &mut Random, rows: usize, columns: usize, layout: Layout) -> Self {
        let len = rows * (columns + 5) + columns * rows;
        Self { memory: (0..len).map(|_| random.normal() as f32).collect(), rows, columns, layout }
    }

    fn matrix(&self) -> Matrix<'_> {
        match self.layout {
            Layout::Rows => Matrix::new(&self.memory, self.rows, self.columns),
            Layout::Gaps => Matrix::strided(&self.memory, self.rows, self.columns, self.columns + 5),
            Layout::Transposed => Matrix::new(&self.memory, self.columns, self.rows).transposed(),
        }
    }
}

fn product(
    m: usize,
    k: usize,
    n: usize,
    a: &Operand,
    b: &Operand,
    accumulate: bool,
    parallel: bool,
) -> Vec<f32> {
    let mut c: Vec<f32> = (0..m * (n + 3)).map(|at| (at % 7) as f32).collect();
    assert_eq!((a.columns, b.rows), (k, k));
    multiply(MatrixMut::strided(&mut c, m, n, n + 3), a.matrix(), b.matrix(), 0.5, accumulate, parallel);
    c
}

fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Rounding of a sum of k products of normal values: the sums on the way are about √k, so k errors of 6e-8 · √k, which
/// go either way, make 6e-8 · k; of a million elements the worst has four to five times that.
fn tolerance(k: usize) -> f32 {
    6.0 * 6e-8 * (k as f32 + 8.0)
}

#[test]
fn every_odd_size_and_layout_agrees_with_the_definition() {
    let seed = 11;
    println!("seed {seed}");
    let mut random = Random::stream(seed, "products");
    let sizes = [1, 2, 3, 5, 6, 7, 11, 13, 31, 33, 63, 64, 65, 97, 130];
    for case in 0..300 {
        let mut one_of = |sizes: &[usize]| sizes[(random.bits() % sizes.len() as u64) as usize];
        let (m, n, k) =
            (one_of(&sizes), one_of(&sizes), one_of(&[0, 1, 2, 3, 4, 5, 15, 16, 17, 64, 511, 513, 1030]));
        let layouts = [Layout::Rows, Layout::Gaps, Layout::Transposed];
        let (left, right) = (layouts[case % 3], layouts[case / 3 % 3]);
        let (a, b) = (Operand::new(&mut random, m, k, left), Operand::new(&mut random, k, n, right));
        let accumulate = case % 2 == 0;
        let c = on_threads(2, || product(m, k, n, &a, &b, accumulate, true));
        for i in 0..m {
            for j in 0..n + 3 {
                let (at, before) = (i * (n + 3) + j, ((i * (n + 3) + j) % 7) as f32);
                if j >= n {
                    assert_eq!(c[at], before, "between the rows");
                    continue;
                }
                let sum =
                    (0..k).map(|l| f64::from(a.matrix().value(i, l)) * f64::from(b.matrix().value(l, j)));
                let exact = 0.5 * sum.sum::<f64>() + if accumulate { f64::from(before) } else { 0.0 };
                let error = (f64::from(c[at]) - exact).abs() as f32;
                assert!(
                    error <= tolerance(k),
                    "{m}×{k}×{n} {left:?} {right:?}: {} for {exact} at {i}, {j}",
                    c[at]
                );
            }
        }
    }
}

#[test]
fn parts_of_the_columns_and_of_the_depth_join() {
    // More columns than are packed at once, and a depth of several packed parts.
    for (m, k, n) in [(3, 512, 2 * PACKED / 512 + 65), (7, 2 * PACKED / 64 + 700, 64)] {
        let mut random = Random::stream(12, "products");
        let (a, b) =
            (Operand::new(&mut random, m, k, Layout::Rows), Operand::new(&mut random, k, n, Layout::Rows));
        let c = on_threads(2, || product(m, k, n, &a, &b, false, true));
        for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 2), (0, n - 1), (m - 1, 0)] {
            let sum = (0..k).map(|l| f64::from(a.matrix().value(i, l)) * f64::from(b.matrix().value(l, j)));
            let exact = 0.5 * sum.sum::<f64>();
            // The error of a sum of k terms grows with √k.
            let error = (f64::from(c[i * (n + 3) + j]) - exact).abs();
            assert!(error < 3e-6 * (k as f64).sqrt(), "{error} at {i}, {j} of {m}×{k}×{n}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut random = Random::stream(13, "products");
    for (m, k, n) in [(1, 600, 200), (97, 1100, 65), (500, 64, 130)] {
        for layout in [Layout::Rows, Layout::Transposed] {
            let (a, b) = (Operand::new(&mut random, m, k, layout), Operand::new(&mut random, k, n, layout));
            let bits = |threads: usize, parallel: bool| -> Vec<u32> {
                on_threads(threads, || product(m, k, n, &a, &b, true, parallel))
                    .into_iter()
                    .map(f32::to_bits)
                    .collect()
            };
            let alone = bits(1, false);
            for threads in [1, 2, 3, 5] {
                assert_eq!(bits(threads, true), alone, "{threads} threads");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_width_of_vectors_and_of_strips_changes_no_bit() {
    /// The product with one kind of vectors, out of strips of so many columns.
    fn with<S: Simd>(simd: S, strip: usize, (a, b): (Matrix<'_>, Matrix<'_>)) -> Vec<f32> {
        let (m, n, k) = (a.rows, b.columns, a.columns);
        let part = Part { a, b, first: 0, columns: n, from: 0, until: k, depth: k, strip };
        let mut packed = vec![0.0; n.next_multiple_of(PANEL) * k];
        part.pack(&mut packed, 1);
        let (mut memory, mut tiles) = (vec![0.0f32; m * n], vec![0.0; TILES]);
        let c = MatrixMut::new(&mut memory, m, n);
        let (part, c, packed, tiles) = (&part, &c, &packed[..], &mut tiles[..]);
        Simd::vectorize(
            simd,
            Rows { part, c, packed, alpha: 1.5, accumulate: false, first: 0, rows: m, tiles },
        );
        memory
    }

    if let Some(narrow) = pulp::x86::V3::try_new() {
        let mut random = Random::stream(14, "products");
        let (m, k, n) = (17, 300, 100);
        for layout in [Layout::Rows, Layout::Transposed] {
            let (a, b) = (Operand::new(&mut random, m, k, layout), Operand::new(&mut random, k, n, layout));
            let operands = (a.matrix(), b.matrix());
            let strips = with(narrow, NARROW, operands);
            assert_eq!(with(narrow, PANEL, operands), strips);
            // What a processor with vectors of 256 bits would compute, on one of 512.
            if let Some(wide) = pulp::x86::V4::try_new() {
                assert_eq!(with(wide, PANEL, operands), strips);
            }
        }
    }
}

#[test]
fn what_packing_takes_is_what_is_said() {
    for (m, k, n) in [(200, 600, 70), (10, 3000, 1000), (300, 100, 9000)] {
        let mut random = Random::stream(15, "products");
        let (a, b) = (
            Operand::new(&mut random, m, k, Layout::Transposed),
            Operand::new(&mut random, k, n, Layout::Rows),
        );
        // Memory of its own: what is kept between products may be another test's.
        let (mut memory, mut c) = (Vec::new(), vec![0.0; m * n]);
        multiply_in(&mut memory, &MatrixMut::new(&mut c, m, n), a.matrix(), b.matrix(), 1.0, false, false);
        let taken = 4 * memory.len();
        assert!(taken <= packing_bytes(1), "{taken} bytes for {m}×{k}×{n}");
    }
}

#[test]
fn tasks_are_whole_tiles_and_leave_the_threads_equal_shares() {
    for (threads, limit) in
        [1, 2, 3, 4, 16].into_iter().flat_map(|threads| [(threads, NARROW_ROWS), (threads, ROWS)])
    {
        for rows in [1, 5, 6, 31, 96, 97, 256, 512, 1000, 2048, 4096] {
            let task = task_rows(rows, threads, limit);
            assert!(task.is_multiple_of(TILE) && (TILE..=limit).contains(&task), "{task} of {rows} rows");
            // Dealt out in turn, the last one being what is left.
            let mut shares = vec![0; threads];
            for (at, first) in (0..rows).step_by(task).enumerate() {
                shares[at % threads] += task.min(rows - first);
            }
            let (most, even) = (*shares.iter().max().unwrap(), rows.div_ceil(threads));
            assert!(
                most <= even * 33 / 32 + LEAST_ROWS,
                "{most} of {rows} rows for one of {threads} threads"
            );
        }
    }
}
