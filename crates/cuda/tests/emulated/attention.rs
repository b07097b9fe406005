//! Attention, forward and backward.

use candlewick_cuda::kernels::{self, HEAD_DIMS};
use candlewick_model::kernels::AttentionShape;

use crate::{
    program::{
        Argument::{Bf16, F32, Float, Int, NewBf16, NewF32},
        Machine,
    },
    reference::{self, columns, widths},
    values::{ROUNDED_ONCE, SINGLE, assert_close, assert_close_to, normal, rounded},
};

/// P is rounded to bf16 before the product with V, and the result once more.
const OUTPUT: f64 = 1.5 * ROUNDED_ONCE;

/// P and dS are rounded, dS after a difference of numbers as large as itself, and the gradient once more.
const GRADIENT: f64 = 2.0 * ROUNDED_ONCE;

/// Lengths below, at and above the tiles of 64 and 128; grouped 1, 2 and 4.
fn shapes() -> impl Iterator<Item = AttentionShape> {
    HEAD_DIMS.into_iter().flat_map(|head_dim| {
        [(3, 1, 2, 2), (1, 7, 4, 2), (3, 33, 2, 1), (3, 65, 4, 1), (1, 130, 2, 2), (1, 193, 2, 1)].map(
            |(batch, length, heads, key_value_heads)| AttentionShape {
                batch,
                length,
                heads,
                key_value_heads,
                head_dim,
            },
        )
    })
}

/// Queries and keys as attention takes them, and the packed projection that the values are in.
struct Inputs {
    qk: Vec<f32>,
    qkv: Vec<f32>,
}

/// Queries and keys are `factor` times normal, and scores its square.
fn inputs(shape: AttentionShape, factor: f32) -> Inputs {
    let [q, k] = widths(shape);
    let tokens = shape.batch * shape.length;
    let qk = normal("qk", tokens * (q + k)).into_iter().map(|x| rounded(factor * x)).collect();
    Inputs { qk, qkv: normal("qkv", tokens * (q + 2 * k)) }
}

fn scale(shape: AttentionShape) -> f32 {
    1.0 / (shape.head_dim as f32).sqrt()
}

fn forward(machine: &mut Machine, shape: AttentionShape, inputs: &Inputs) -> [Vec<f32>; 2] {
    let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
    let got = machine.launch(
        kernels::attention_forward(batch, length, heads, head_dim),
        &[
            NewBf16(batch * length * heads * head_dim),
            NewF32(batch * heads * length),
            Bf16(&inputs.qk),
            Bf16(&inputs.qkv),
            Int(length as i32),
            Int(heads as i32),
            Int(key_value_heads as i32),
            Float(scale(shape)),
        ],
    );
    [got[0].floats(), got[1].floats()]
}

#[test]
fn the_output_and_the_logarithms_of_sums() {
    let mut machine = Machine::start();
    // A softmax that is far from even; and scores of hundreds, whose exponentials no f32 holds.
    let cases =
        shapes().map(|shape| (shape, 1.5)).chain(shapes().skip(4).step_by(6).map(|shape| (shape, 15.0)));
    for (shape, factor) in cases {
        let inputs = inputs(shape, factor);
        let [out, log_sums] = reference::attention_forward(&inputs.qk, &inputs.qkv, shape);
        let [got, got_log_sums] = forward(&mut machine, shape, &inputs);
        assert_close(&got, &out, OUTPUT, &format!("out of {shape:?}"));
        // Products of bf16 are exact in f32: only the order of sums differs.
        assert_close(&got_log_sums, &log_sums, 4.0 * SINGLE, &format!("log-sum-exp of {shape:?}"));
    }
}

#[test]
fn the_gradients_of_queries_keys_and_values() {
    let mut machine = Machine::start();
    for shape in shapes() {
        let AttentionShape { batch, length, heads, key_value_heads, head_dim } = shape;
        let inputs = inputs(shape, 1.5);
        let dout = normal("dout", batch * length * heads * head_dim);
        let [out, log_sums] = forward(&mut machine, shape, &inputs);
        let expected =
            reference::attention_backward(&dout, [&out, &log_sums], (&inputs.qk, &inputs.qkv), shape);

        let tokens = batch * length;
        let delta = machine.launch(
            kernels::attention_delta(tokens, heads, head_dim),
            &[
                NewF32(batch * heads * length),
                Bf16(&dout),
                Bf16(&out),
                Int(tokens as i32),
                Int(length as i32),
                Int(heads as i32),
                Int(head_dim as i32),
            ],
        )[0]
        .floats();
        let rest = [
            Bf16(&inputs.qk),
            Bf16(&inputs.qkv),
            Bf16(&dout),
            F32(&log_sums),
            F32(&delta),
            Int(length as i32),
            Int(heads as i32),
            Int(key_value_heads as i32),
            Float(scale(shape)),
        ];
        let keys_first: Vec<_> =
            std::iter::once(NewBf16(inputs.qkv.len())).chain(rest.iter().cloned()).collect();
        let launch = kernels::attention_backward_keys(batch, length, key_value_heads, head_dim);
        let dqkv = machine.launch(launch, &keys_first)[0].floats();
        let then_queries: Vec<_> = std::iter::once(Bf16(&dqkv)).chain(rest.iter().cloned()).collect();
        let launch = kernels::attention_backward_queries(batch, length, heads, head_dim);
        let dqkv = machine.launch(launch, &then_queries)[0].floats();

        let [q, k] = widths(shape);
        // A first token has one key, so that its dQ is the difference of two equal sums: what is left of it is measured
        // by what went in.
        let input = dout.iter().map(|&x| f64::from(x * x)).sum::<f64>().sqrt();
        for (name, from, count) in [("dq", 0, q), ("dk", q, k), ("dv", q + k, k)] {
            let [got, expected] = [&dqkv, &expected].map(|packed| columns(packed, q + 2 * k, from, count));
            let size = expected.iter().map(|&x| f64::from(x * x)).sum::<f64>().sqrt();
            let limit = GRADIENT * size.max(1e-3 * input);
            assert_close_to(&got, &expected, limit, &format!("{name} of {shape:?}"));
        }
    }
}
