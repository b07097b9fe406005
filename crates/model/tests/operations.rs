//! Each operation with a gradient of its own against the same formula in candle's primitives, in f64.

mod plain;

use candle_core::{DType, Device, Result, Tensor, Var};
use candlewick_model::{Random, kernels::RotaryTable, ops};
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
    for (at, (found, expected)) in run(inputs, &ours).iter().zip(run(&double, &plain)).enumerate() {
        let norm = |values: Vec<f64>| values.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(found.iter().zip(&expected).map(|(a, b)| a - b).collect());
        let size = norm(expected);
        assert!(difference <= 1e-5 * size + 1e-6, "{at} of seed {SEED}: {difference:e} of {size:e}");
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
    for shape in [[1, 1], [3, 7], [300, 65]] {
        let inputs = [random("gate", &shape), random("up", &shape)];
        compare(&inputs, |x| ops::swiglu(&x[0], &x[1]), |x| plain::swiglu(&x[0], &x[1]));
    }
}

#[test]
fn rope_is_its_formula() {
    for shape in [[1, 1, 1, 2], [2, 5, 3, 6], [2, 100, 4, 32]] {
        let table = Arc::new(RotaryTable::new(128, shape[3], 10_000.0));
        compare(&[random("x", &shape)], |x| ops::rope(&x[0], &table), |x| plain::rope(&x[0], 10_000.0));
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
    for (heads, groups) in [(1, 1), (4, 4), (4, 2), (4, 1), (6, 3)] {
        for (batch, length) in [(1, 1), (3, 2), (1, 63), (2, 64), (1, 65), (2, 130)] {
            let query = [batch, length, heads, 10];
            let key = [batch, length, groups, 10];
            let inputs = [random("q", &query), random("k", &key), random("v", &key)];
            let plain = |x: &[Tensor]| plain::attention(&x[0], &x[1], &x[2]);
            compare(&inputs, |x| ops::attention(&x[0], &x[1], &x[2]), plain);
        }
    }
}

#[test]
fn the_chunked_head_loss_is_cross_entropy() {
    // 300 tokens are more than a chunk; the second chunk of 600 is all ignored.
    for (tokens, vocabulary, ignored) in [(1, 3, 0..0), (300, 37, 5..60), (600, 41, 256..512)] {
        let inputs = [random("x", &[tokens, 9]), random("w", &[vocabulary, 9])];
        let mut draw = Random::stream(SEED, "targets");
        let mut targets: Vec<u32> = (0..tokens).map(|_| (draw.bits() % vocabulary as u64) as u32).collect();
        targets[ignored.clone()].fill(u32::MAX);
        let scale = 1.0 / (tokens - ignored.len()) as f64;
        let ours = |x: &[Tensor]| Ok(ops::head_loss(&x[0], &x[1], &targets, scale)?.scaled);
        compare(&inputs, ours, |x| plain::cross_entropy(&x[0].matmul(&x[1].t()?)?, &targets));
    }
}

#[test]
fn operations_of_shapes_that_do_not_fit_are_errors() {
    let x = random("x", &[2, 3, 4, 6]);
    let table = Arc::new(RotaryTable::new(2, 6, 10_000.0));
    assert!(ops::rope(&x, &table).is_err(), "three tokens in a table of two");
    assert!(ops::rms_norm(&x, &random("w", &[5]), 1e-6).is_err());
    assert!(ops::swiglu(&x, &random("y", &[6])).is_err());
    assert!(ops::linear(&x, &random("w", &[6, 5])).is_err());
    assert!(ops::attention(&x, &random("k", &[2, 3, 3, 6]), &random("v", &[2, 3, 3, 6])).is_err());
    let ids = Tensor::new(&[[9u32]], &Device::Cpu).unwrap();
    assert!(ops::embedding(&random("w", &[9, 2]), &ids).is_err());
    assert!(ops::head_loss(&random("x", &[1, 2]), &random("w", &[9, 2]), &[9], 1.0).is_err());
    let turned = random("x", &[4, 6]).t().unwrap();
    assert!(ops::linear(&turned, &random("w", &[3, 4])).is_err(), "values with gaps");
}
