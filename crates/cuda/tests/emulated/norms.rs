//! RMSNorm with the residual sum, and QK-norm with RoPE.

use candlewick_cuda::kernels;
use candlewick_model::kernels::{AttentionShape, RotaryTable};

use crate::{
    program::{
        Argument::{self, Bf16, F32, Float, Int, NewBf16, NewF32, Null, Same},
        Machine,
    },
    reference::{self, columns, widths},
    values::{ROUNDED_ONCE, SINGLE, around_one, assert_close, normal, rounded},
};

const EPS: f32 = 1e-6;

const SHAPES: [(usize, usize); 6] = [(1, 8), (7, 64), (33, 264), (65, 136), (130, 72), (3, 2056)];

fn reciprocal_roots(x: &[f32], width: usize) -> Vec<f32> {
    let mean = |row: &[f32]| row.iter().map(|&x| f64::from(x * x)).sum::<f64>() / width as f64;
    x.chunks_exact(width).map(|row| (1.0 / (mean(row) + f64::from(EPS)).sqrt()) as f32).collect()
}

#[test]
fn rms_norm_of_the_residual_sum() {
    let mut machine = Machine::start();
    for (rows, width) in SHAPES {
        let n = rows * width;
        let (x, delta, w) = (normal("x", n), normal("delta", n), around_one("w", width));
        let (rows_, width_) = (Int(rows as i32), Int(width as i32));
        let launch = kernels::add_rms_norm_forward(rows, width);
        let sum: Vec<f32> = x.iter().zip(&delta).map(|(x, delta)| rounded(x + delta)).collect();
        let expected = reference::rms_norm_forward(&sum, &w, EPS);
        let got = machine.launch(
            launch,
            &[
                NewBf16(n),
                NewBf16(n),
                NewF32(rows),
                Bf16(&x),
                Bf16(&delta),
                Bf16(&w),
                rows_.clone(),
                width_.clone(),
                Float(EPS),
            ],
        );
        assert_eq!(got[0].floats(), sum);
        assert_close(&got[1].floats(), &expected, ROUNDED_ONCE, "y");
        assert_close(&got[2].floats(), &reciprocal_roots(&sum, width), SINGLE, "rstd");
        // In place, and without a residual.
        let arguments = [
            Bf16(&x),
            NewBf16(n),
            NewF32(rows),
            Same(0),
            Bf16(&delta),
            Bf16(&w),
            rows_.clone(),
            width_.clone(),
            Float(EPS),
        ];
        assert_eq!(machine.launch(launch, &arguments)[..3], got[..3]);
        let expected = reference::rms_norm_forward(&x, &w, EPS);
        let got = machine.launch(
            launch,
            &[Null, NewBf16(n), NewF32(rows), Bf16(&x), Null, Bf16(&w), rows_, width_, Float(EPS)],
        );
        assert_close(&got[0].floats(), &expected, ROUNDED_ONCE, "y without a residual");
    }
}

#[test]
fn its_gradient_with_and_without_what_passes_it() {
    let mut machine = Machine::start();
    // More rows than the grid has blocks, so that a block takes several.
    for (rows, width) in SHAPES.into_iter().chain([(1100, 16)]) {
        let n = rows * width;
        let (x, dy, past) = (normal("x", n), normal("dy", n), normal("past", n));
        let (w, before) = (around_one("w", width), normal("before", width));
        let rstd = reciprocal_roots(&x, width);
        let launch = kernels::rms_norm_backward(rows, width);
        let parts = launch.grid[0] as usize;
        for with_past in [true, false] {
            let mut dx = if with_past { past.clone() } else { vec![0.0; n] };
            let dw = reference::rms_norm_backward(&mut dx, &before, &dy, &x, &w, EPS);
            let rest = [
                NewF32(parts * width),
                Bf16(&dy),
                Bf16(&x),
                F32(&rstd),
                Bf16(&w),
                if with_past { Same(0) } else { Null },
                Int(rows as i32),
                Int(width as i32),
            ];
            let first = if with_past { Bf16(&past) } else { NewBf16(n) };
            let arguments: Vec<_> = std::iter::once(first).chain(rest).collect();
            let got = machine.launch(launch, &arguments);
            assert_close(&got[0].floats(), &dx, ROUNDED_ONCE, "dx");
            let partial = got[1].floats();
            let got = machine.launch(
                kernels::reduce_partials(width),
                &[F32(&before), F32(&partial), Int(parts as i32), Int(width as i32), Int(width as i32)],
            );
            assert_close(&got[0].floats(), &dw, SINGLE, "dw");
        }
    }
}

const fn shape(
    batch: usize,
    length: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
) -> AttentionShape {
    AttentionShape { batch, length, heads, key_value_heads, head_dim }
}

const HEADS: [AttentionShape; 5] = [
    shape(3, 1, 4, 4, 64),
    shape(1, 7, 4, 2, 128),
    shape(3, 33, 3, 1, 64),
    shape(1, 65, 4, 1, 128),
    shape(1, 130, 2, 2, 64),
];

/// What both directions of QK-norm and RoPE end with.
fn sizes(shape: AttentionShape) -> [Argument<'static>; 6] {
    let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
    let [tokens, length, heads, key_value_heads, head_dim] =
        [batch * length, length, heads, key_value_heads, head_dim].map(|n| Int(n as i32));
    [tokens, length, heads, key_value_heads, head_dim, Float(EPS)]
}

#[test]
fn qk_norm_and_rope_of_the_packed_projection() {
    let mut machine = Machine::start();
    for shape in HEADS {
        let [q, k] = widths(shape);
        let tokens = shape.batch * shape.length;
        let qkv = normal("qkv", tokens * (q + 2 * k));
        let weights = [around_one("wq", shape.head_dim), around_one("wk", shape.head_dim)];
        let table = RotaryTable::new(shape.length, shape.head_dim, 10_000.0);
        for norms in [Some([&weights[0][..], &weights[1]]), None] {
            let expected = reference::qk_norm_rope_forward(&qkv, norms, &table, shape, EPS);
            let [wq, wk] = norms.map_or([Null, Null], |norms| norms.map(Bf16));
            let mut arguments =
                vec![NewBf16(tokens * (q + k)), Bf16(&qkv), wq, wk, F32(table.cos()), F32(table.sin())];
            arguments.extend(sizes(shape));
            let got = machine.launch(kernels::qk_norm_rope_forward(tokens), &arguments)[0].floats();
            for (name, from, count) in [("queries", 0, q), ("keys", q, k)] {
                let [got, expected] = [&got, &expected].map(|packed| columns(packed, q + k, from, count));
                assert_close(&got, &expected, ROUNDED_ONCE, name);
            }
        }
    }
}

#[test]
fn their_gradient_in_place() {
    let mut machine = Machine::start();
    for shape in HEADS {
        let [q, k] = widths(shape);
        let tokens = shape.batch * shape.length;
        let n = tokens * (q + 2 * k);
        let (qkv, grad) = (normal("qkv", n), normal("grad", n));
        let weights = [around_one("wq", shape.head_dim), around_one("wk", shape.head_dim)];
        let table = RotaryTable::new(shape.length, shape.head_dim, 10_000.0);
        let launch = kernels::qk_norm_rope_backward(tokens, shape.head_dim);
        let (blocks, width) = (launch.grid[0] as usize, 2 * shape.head_dim);
        for norms in [Some([&weights[0][..], &weights[1]]), None] {
            let (dqkv, dw) = reference::qk_norm_rope_backward(&grad, &qkv, norms, &table, shape, EPS);
            let [wq, wk] = norms.map_or([Null, Null], |norms| norms.map(Bf16));
            let partial = if norms.is_some() { NewF32(blocks * width) } else { Null };
            let mut arguments =
                vec![Bf16(&grad), partial, Bf16(&qkv), wq, wk, F32(table.cos()), F32(table.sin())];
            arguments.extend(sizes(shape));
            let got = machine.launch(launch, &arguments);
            let after = got[0].floats();
            for (name, from, count) in [("dq", 0, q), ("dk", q, k)] {
                let [got, expected] = [&after, &dqkv].map(|packed| columns(packed, q + 2 * k, from, count));
                assert_close(&got, &expected, ROUNDED_ONCE, name);
            }
            let [after, before] = [&after, &grad].map(|packed| columns(packed, q + 2 * k, q + k, k));
            assert_eq!(after, before, "the values' part is not touched");
            if norms.is_none() {
                continue;
            }
            let partial = got[1].floats();
            for (i, expected) in dw.iter().enumerate() {
                let got = machine.launch(
                    kernels::reduce_partials(shape.head_dim),
                    &[
                        F32(&vec![0.0; shape.head_dim]),
                        F32(&partial[i * shape.head_dim..]),
                        Int(blocks as i32),
                        Int(width as i32),
                        Int(shape.head_dim as i32),
                    ],
                );
                // Sums over tokens and heads of products whose signs differ.
                assert_close(&got[0].floats(), expected, 4.0 * SINGLE, ["dwq", "dwk"][i]);
            }
        }
    }
}
