//! The embedding and its gradient.

use candlewick_cuda::kernels;
use candlewick_model::{Random, kernels as cpu};

use crate::{
    program::{
        Argument::{Bf16, F32, Int, NewBf16, U32},
        Machine,
    },
    values::{SEED, normal},
};

const VOCABULARY: usize = 40;

fn ids(tokens: usize) -> Vec<u32> {
    let mut random = Random::stream(SEED, "ids");
    // Few different ones, so that most repeat.
    (0..tokens).map(|_| (random.normal().abs() * 9.0) as u32 % VOCABULARY as u32).collect()
}

/// Tokens by id, stably; where each id's begin; those ids.
fn segments(ids: &[u32]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&token| ids[token as usize]);
    let (mut starts, mut segment_ids) = (Vec::new(), Vec::new());
    for (at, &token) in order.iter().enumerate() {
        if segment_ids.last() != Some(&ids[token as usize]) {
            starts.push(at as u32);
            segment_ids.push(ids[token as usize]);
        }
    }
    starts.push(ids.len() as u32);
    (order, starts, segment_ids)
}

#[test]
fn the_embedding_copies_rows() {
    let mut machine = Machine::start();
    for (tokens, width) in [(1, 8), (7, 64), (33, 264), (130, 72)] {
        let (ids, w) = (ids(tokens), normal("embedding", VOCABULARY * width));
        let mut expected = vec![0.0; tokens * width];
        cpu::embedding_forward(&mut expected, &w, &ids, width);
        let arguments = [NewBf16(tokens * width), U32(&ids), Bf16(&w), Int(tokens as i32), Int(width as i32)];
        let got = machine.launch(kernels::embedding_forward(tokens, width), &arguments);
        assert_eq!(got[0].floats(), expected);
    }
}

#[test]
fn its_gradient_is_the_sum_in_the_order_of_the_tokens_bitwise() {
    let mut machine = Machine::start();
    for (tokens, width) in [(1, 8), (7, 64), (33, 1032), (130, 72)] {
        let ids = ids(tokens);
        let dy = normal("gradient", tokens * width);
        let before = normal("before", VOCABULARY * width);
        let mut expected = before.clone();
        cpu::embedding_backward(&mut expected, &dy, &ids, width);
        let (order, starts, segment_ids) = segments(&ids);
        let got = machine.launch(
            kernels::embedding_backward(segment_ids.len(), width),
            &[F32(&before), Bf16(&dy), U32(&order), U32(&starts), U32(&segment_ids), Int(width as i32)],
        );
        assert_eq!(got[0].floats(), expected, "{tokens} tokens of width {width}");
    }
}
