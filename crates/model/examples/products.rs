//! Products of a training step, ours beside the `gemm` crate's, on the same values in the same minute:
//! `cargo run --release -p candlewick-model --example products -- THREADS SPEC`, SPEC as JSON; part of
//! `npm run bench:step`.
//!
//! A line on stdin asks for so many rounds of all shapes; a line on stdout answers with their seconds.

use candlewick_model::{
    ModelConfig, Random,
    kernels::{Matrix, MatrixMut, multiply},
};
use rayon::ThreadPoolBuilder;
use serde::Deserialize;
use serde_json::json;
use std::{error::Error, io, time::Instant};

#[derive(Deserialize)]
struct Spec {
    model: ModelConfig,
    rows: usize,
    length: usize,
}

/// Tokens whose logits exist at a time with this vocabulary, as the backend has it.
fn logit_rows(vocabulary: usize) -> usize {
    ((1 << 23) / vocabulary).clamp(256, 1024)
}

/// y = x·Wᵀ of `tokens` tokens, and its two gradients.
struct Layer {
    name: &'static str,
    tokens: usize,
    input: usize,
    output: usize,
    /// How often in a step.
    times: usize,
}

/// C = A·B for C `[m, n]` over a depth of k.
struct Product {
    name: String,
    dimensions: [usize; 3],
    transposed: [bool; 2],
    times: usize,
}

impl Layer {
    fn products(&self) -> [Product; 3] {
        let Self { name, tokens, input, output, times } = *self;
        let product = |of: &str, dimensions, transposed| Product {
            name: format!("{name}, {of}"),
            dimensions,
            transposed,
            times,
        };
        [
            product("y", [tokens, output, input], [false, true]),
            product("dx", [tokens, input, output], [false, false]),
            product("dW", [output, input, tokens], [true, false]),
        ]
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (threads, spec) = (arguments.next().ok_or("THREADS")?, arguments.next().ok_or("SPEC")?);
    let Spec { model, rows, length } = serde_json::from_str(&spec)?;
    let pool = ThreadPoolBuilder::new().num_threads(threads.parse()?).build()?;
    let (tokens, c, i) = (rows * length, model.hidden_size, model.intermediate_size);
    let (q, k) = (model.query_size(), model.key_value_size());
    let (times, logit_rows) = (model.num_hidden_layers, logit_rows(model.vocab_size).min(tokens));
    let layers = [
        Layer { name: "q, k, v", tokens, input: c, output: q + 2 * k, times },
        Layer { name: "o", tokens, input: q, output: c, times },
        Layer { name: "gate, up", tokens, input: c, output: 2 * i, times },
        Layer { name: "down", tokens, input: i, output: c, times },
        Layer {
            name: "head",
            tokens: logit_rows,
            input: c,
            output: model.vocab_size,
            times: tokens.div_ceil(logit_rows),
        },
    ];
    let products: Vec<Product> = layers.iter().flat_map(Layer::products).collect();
    let names: Vec<_> = products
        .iter()
        .map(|p| json!({ "name": p.name, "dimensions": p.dimensions, "times": p.times }))
        .collect();
    println!("{}", json!({ "version": "candlewick and gemm 0.19", "products": names }));
    for line in io::stdin().lines() {
        let rounds: usize = line?.trim().parse()?;
        let seconds: Vec<[Vec<f64>; 2]> =
            products.iter().map(|product| pool.install(|| time(product, rounds))).collect();
        println!("{}", json!({ "seconds": seconds }));
    }
    Ok(())
}

/// Seconds of each round, ours and the crate's, which take turns.
fn time(product: &Product, rounds: usize) -> [Vec<f64>; 2] {
    let [m, n, k] = product.dimensions;
    let mut random = Random::stream(1, &product.name);
    let mut values = |n: usize| -> Vec<f32> { (0..n).map(|_| random.normal() as f32).collect() };
    let (a, b, mut c) = (values(m * k), values(k * n), vec![0.0; m * n]);
    let mut seconds = [Vec::new(), Vec::new()];
    // The first of each is not counted: it brings memory into the process.
    for round in 0..=rounds {
        let began = Instant::now();
        let (a_mk, b_kn) = (matrix(&a, m, k, product.transposed[0]), matrix(&b, k, n, product.transposed[1]));
        multiply(MatrixMut::new(&mut c, m, n), a_mk, b_kn, 1.0, false, true);
        let ours = began.elapsed().as_secs_f64();
        let began = Instant::now();
        crates(&mut c, &a, &b, product);
        let theirs = began.elapsed().as_secs_f64();
        if round > 0 {
            seconds[0].push(ours);
            seconds[1].push(theirs);
        }
    }
    seconds
}

fn matrix(values: &[f32], rows: usize, columns: usize, transposed: bool) -> Matrix<'_> {
    if transposed {
        Matrix::new(values, columns, rows).transposed()
    } else {
        Matrix::new(values, rows, columns)
    }
}

fn crates(c: &mut [f32], a: &[f32], b: &[f32], product: &Product) {
    let [m, n, k] = product.dimensions;
    assert!(c.len() == m * n && a.len() == m * k && b.len() == k * n);
    // Column stride, then row stride.
    let strides = |rows: usize, columns: usize, transposed: bool| {
        if transposed { (rows as isize, 1) } else { (1, columns as isize) }
    };
    let (a_strides, b_strides) = (strides(m, k, product.transposed[0]), strides(k, n, product.transposed[1]));
    // SAFETY: the lengths were just checked against the dimensions that the strides describe.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_strides.0,
            a_strides.1,
            b.as_ptr(),
            b_strides.0,
            b_strides.1,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
