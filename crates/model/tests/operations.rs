//! Each operation with a gradient of its own against the same formula in candle's primitives, in f64.

mod plain;

use candle_core::{DType, Device, Result, Tensor, Var};
use candlewick_model::{
    Random,
    kernels::{AttentionShape, RotaryTable},
    ops,
};
use std::sync::Arc;

const SEED: u64 = 7;

fn random(name: &str, shape: &[usize]) -> Var {
    let mut random = Random::stream(SEED, name);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.normal() as f32).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Result and gradients of Σ f(inputs) · w for fixed random w, compared by ‖a − b‖₂ / ‖b‖₂; absolutely where b is
/// zero (a single token attends to itself whatever q and k are) or nearly so (a row of one value has the norm ±1).
#[track_caller]
fn compare(
    inputs: &[Var],
    ours: impl Fn(&[Tensor]) -> Result<Tensor>,
    plain: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let run = |inputs: &[Var], f: &dyn Fn(&[Tensor]) -> Result<Tensor>| -> Vec<Vec<f64>> {
        let tensors: Vec<Tensor> = inputs.iter().map(|var| var.as_tensor().clone()).collect();
        let output = f(&tensors).unwrap();
        let weights = random("weights", output.dims()).to_dtype(output.dtype()).unwrap().detach();
        let grads = (&output * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let grads = tensors.iter().map(|tensor| values(grads.get(tensor).unwrap()));
        std::iter::once(values(&output)).chain(grads).collect()
    };
    let double: Vec<Var> =
        inputs.iter().map(|var| Var::from_tensor(&var.to_dtype(DType::F64).unwrap()).unwrap()).collect();
    let expected = run(&double, &plain);
    finite_differences(&double, &plain, &expected[1..]);
    for (at, (found, expected)) in run(inputs, &ours).iter().zip(expected).enumerate() {
        let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(found.iter().zip(&expected).map(|(a, b)| a - b).collect());
        let size = norm(expected);
        assert!(difference <= 1e-5 * size + 1e-6, "{at} of seed {SEED}: {difference:e} of {size:e}");
    }
}

/// candle's gradients of the formula in f64 against (f(x + h·d) − f(x − h·d)) / 2h along a random direction d in each
/// input. With h = 1e-6 the truncated terms and the rounding of sums are both below 1e-6 of the terms' size.
#[track_caller]
fn finite_differences(inputs: &[Var], plain: &dyn Fn(&[Tensor]) -> Result<Tensor>, grads: &[Vec<f64>]) {
    let objective = |inputs: &[Tensor]| -> f64 {
        let output = plain(inputs).unwrap();
        let weights = random("weights", output.dims()).to_dtype(DType::F64).unwrap();
        (output * weights).unwrap().sum_all().unwrap().to_scalar().unwrap()
    };
    for (at, grad) in grads.iter().enumerate() {
        let direction = random(&format!("direction {at}"), inputs[at].dims()).to_dtype(DType::F64).unwrap();
        let moved = |h: f64| {
            let mut moved: Vec<Tensor> = inputs.iter().map(|var| var.as_detached_tensor()).collect();
            moved[at] = (&moved[at] + (&direction * h).unwrap()).unwrap();
            objective(&moved)
        };
        let h = 1e-6;
        let measured = (moved(h) - moved(-h)) / (2.0 * h);
        let terms: Vec<f64> = grad.iter().zip(values(&direction)).map(|(g, d)| g * d).collect();
        let (expected, size) = (terms.iter().sum::<f64>(), terms.iter().map(|term| term.abs()).sum::<f64>());
        let difference = (measured - expected).abs();
        assert!(difference <= 1e-6 * (1.0 + size), "input {at}: {measured} for {expected}, seed {SEED}");
    }
}

#[test]
fn rms_norm_is_its_formula() {
    for shape in [[1, 1], [3, 7], [130, 33], [600, 64]] {
        let inputs = [random("x", &shape), random("w", &shape[1..])];
        let plain = |x: &[Tensor]| plain::rms_norm(&x[0], &x[1], 1e-6);
        compare(&inputs, |x| ops::rms_norm(&x[0], &x[1], 1e-6), plain);
    }
}

#[test]
fn swiglu_is_its_formula() {
    for (rows, width) in [(1, 1), (3, 7), (300, 65)] {
        let plain = |x: &[Tensor]| plain::swiglu(&x[0].narrow(1, 0, width)?, &x[0].narrow(1, width, width)?);
        compare(&[random("gate_up", &[rows, 2 * width])], |x| ops::swiglu(&x[0]), plain);
    }
}

fn shape(batch: usize, length: usize, heads: [usize; 2], head_dim: usize) -> AttentionShape {
    AttentionShape { batch, length, heads: heads[0], key_value_heads: heads[1], head_dim }
}

/// Heads \[first, first + count) of packed ones, `[B, T, count, D]`.
fn heads(x: &Tensor, shape: AttentionShape, first: usize, count: usize) -> Result<Tensor> {
    let AttentionShape { batch, length, head_dim, .. } = shape;
    let part = x.narrow(2, first * head_dim, count * head_dim)?.contiguous()?;
    part.reshape((batch, length, count, head_dim))
}

/// Queries and keys, each normed by the scales there are and turned, packed again.
fn plain_qk(x: &[Tensor], shape: AttentionShape) -> Result<Tensor> {
    let AttentionShape { batch, length, heads: h, key_value_heads: g, .. } = shape;
    let part = |first: usize, count: usize, norm: Option<&Tensor>| {
        let x = heads(&x[0], shape, first, count)?;
        let x = norm.map_or(Ok(x.clone()), |norm| plain::rms_norm(&x, norm, 1e-6))?;
        plain::rope(&x, 10_000.0)?.reshape((batch, length, count * shape.head_dim))
    };
    Tensor::cat(&[part(0, h, x.get(1))?, part(h, g, x.get(2))?], 2)
}

#[test]
fn norms_of_heads_and_rotation_are_their_formula() {
    for shape in [shape(1, 1, [1, 1], 2), shape(3, 5, [3, 1], 6), shape(2, 100, [4, 2], 32)] {
        let table = Arc::new(RotaryTable::new(128, shape.head_dim, 10_000.0));
        let qkv = random("qkv", &[shape.batch, shape.length, shape.qkv_width()]);
        let turned = |x: &[Tensor]| ops::qk_norm_rope(&x[0], None, &table, shape, 1e-6);
        compare(std::slice::from_ref(&qkv), turned, |x| plain_qk(x, shape));
        let normed =
            |x: &[Tensor]| ops::qk_norm_rope(&x[0], Some(&(x[1].clone(), x[2].clone())), &table, shape, 1e-6);
        let inputs = [qkv, random("q norm", &[shape.head_dim]), random("k norm", &[shape.head_dim])];
        compare(&inputs, normed, |x| plain_qk(x, shape));
    }
}

#[test]
fn linear_is_its_formula() {
    for (tokens, out, input) in [(1, 1, 1), (3, 5, 7), (130, 17, 33)] {
        let inputs = [random("x", &[2, tokens, input]), random("w", &[out, input])];
        compare(&inputs, |x| ops::linear(&x[0], &x[1]), |x| x[0].broadcast_matmul(&x[1].t()?));
    }
}

#[test]
fn embedding_is_its_formula() {
    let ids = Tensor::new(&[[0u32, 4, 4], [2, 4, 0]], &Device::Cpu).unwrap();
    let plain = |w: &[Tensor]| w[0].index_select(&ids.flatten_all()?, 0)?.reshape((2, 3, 9));
    compare(&[random("w", &[5, 9])], |w| ops::embedding(&w[0], &ids), plain);
}

#[test]
fn attention_is_its_formula_for_every_grouping_and_length() {
    for counts in [[1, 1], [4, 4], [4, 2], [4, 1], [6, 3]] {
        for (batch, length) in [(1, 1), (3, 2), (1, 63), (2, 64), (1, 65), (3, 130)] {
            let shape = shape(batch, length, counts, 10);
            let inputs = [
                random("qk", &[batch, length, shape.qk_width()]),
                random("qkv", &[batch, length, shape.qkv_width()]),
            ];
            let plain = |x: &[Tensor]| {
                let [h, g] = counts;
                let (q, k) = (heads(&x[0], shape, 0, h)?, heads(&x[0], shape, h, g)?);
                let v = heads(&x[1], shape, h + g, g)?;
                plain::attention(&q, &k, &v)?.reshape((batch, length, h * shape.head_dim))
            };
            compare(&inputs, |x| ops::attention(&x[0], &x[1], shape), plain);
        }
    }
}

#[test]
fn the_head_loss_is_cross_entropy() {
    for (tokens, vocabulary, ignored) in [(1, 3, 0..0), (300, 37, 5..60), (600, 41, 256..512)] {
        let inputs = [random("x", &[tokens, 9]), random("w", &[vocabulary, 9])];
        let targets = targets(tokens, vocabulary, ignored.clone());
        let scale = 1.0 / (tokens - ignored.len()) as f64;
        let ours = |x: &[Tensor]| Ok(ops::head_loss(&x[0], &x[1], &targets, scale, 0.0)?.scaled);
        compare(&inputs, ours, |x| plain::cross_entropy(&x[0].matmul(&x[1].t()?)?, &targets));
    }
}

fn targets(tokens: usize, vocabulary: usize, ignored: std::ops::Range<usize>) -> Vec<u32> {
    let mut draw = Random::stream(SEED, "targets");
    let mut targets: Vec<u32> = (0..tokens).map(|_| (draw.bits() % vocabulary as u64) as u32).collect();
    targets[ignored].fill(u32::MAX);
    targets
}

/// The loss that is told stays the cross-entropy; its gradient is that of the sum.
#[test]
fn z_loss_adds_the_gradient_of_the_squared_logarithm() {
    let (tokens, vocabulary, z_loss) = (50, 23, 0.1);
    let inputs = [random("x", &[tokens, 9]), random("w", &[vocabulary, 9])];
    let targets = targets(tokens, vocabulary, 3..10);
    let ours = |z_loss| {
        let [x, w] = [&inputs[0], &inputs[1]].map(|var| var.as_tensor().clone());
        let loss = ops::head_loss(&x, &w, &targets, 1.0 / 43.0, z_loss).unwrap();
        let grads = loss.scaled.backward().unwrap();
        (loss.nats, [x, w].map(|x| values(grads.get(&x).unwrap())))
    };
    let double = inputs.each_ref().map(|var| Var::from_tensor(&var.to_dtype(DType::F64).unwrap()).unwrap());
    let logits = double[0].matmul(&double[1].t().unwrap()).unwrap();
    let loss = plain::cross_entropy(&logits, &targets).unwrap();
    let log_sums = logits.exp().unwrap().sum_keepdim(1).unwrap().log().unwrap();
    let counted: Vec<f64> = targets.iter().map(|&target| f64::from(target != u32::MAX)).collect();
    let counted = Tensor::from_vec(counted, (tokens, 1), &Device::Cpu).unwrap();
    let squares = (log_sums.sqr().unwrap() * counted).unwrap().sum_all().unwrap();
    let whole = (loss + (squares * (z_loss / 43.0)).unwrap()).unwrap();
    let expected = whole.backward().unwrap();
    let (nats, found) = ours(z_loss);
    assert_eq!(nats, ours(0.0).0);
    for (found, var) in found.iter().zip(&double) {
        let expected = values(expected.get(var.as_tensor()).unwrap());
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
        // As everywhere in this file: f32 kernels against f64.
        assert!(difference <= 1e-5 * norm(&mut expected.iter().copied()), "{difference:e}, seed {SEED}");
    }
    assert_ne!(found[0], ours(0.0).1[0]);
}

#[test]
fn operations_of_shapes_that_do_not_fit_are_errors() {
    let shape = shape(2, 3, [4, 2], 6);
    let (qk, qkv) = (random("qk", &[2, 3, 36]), random("qkv", &[2, 3, 48]));
    let table = Arc::new(RotaryTable::new(2, 6, 10_000.0));
    assert!(ops::qk_norm_rope(&qkv, None, &table, shape, 1e-6).is_err(), "three tokens in a table of two");
    let table = Arc::new(RotaryTable::new(3, 6, 10_000.0));
    assert!(ops::qk_norm_rope(&qk, None, &table, shape, 1e-6).is_err());
    let norms = (random("q", &[5]).as_tensor().clone(), random("k", &[6]).as_tensor().clone());
    assert!(ops::qk_norm_rope(&qkv, Some(&norms), &table, shape, 1e-6).is_err());
    let x = random("x", &[2, 3, 4, 6]);
    assert!(ops::rms_norm(&x, &random("w", &[5]), 1e-6).is_err());
    assert!(ops::swiglu(&random("y", &[3, 5])).is_err());
    assert!(ops::linear(&x, &random("w", &[6, 5])).is_err());
    assert!(ops::attention(&qkv, &qkv, shape).is_err());
    assert!(ops::attention(&qk, &qkv, AttentionShape { key_value_heads: 3, heads: 3, ..shape }).is_err());
    let ids = Tensor::new(&[[9u32]], &Device::Cpu).unwrap();
    assert!(ops::embedding(&random("w", &[9, 2]), &ids).is_err());
    assert!(ops::head_loss(&random("x", &[1, 2]), &random("w", &[9, 2]), &[9], 1.0, 0.0).is_err());
    let turned = random("x", &[4, 6]).t().unwrap();
    assert!(ops::linear(&turned, &random("w", &[3, 4])).is_err(), "values with gaps");
}
