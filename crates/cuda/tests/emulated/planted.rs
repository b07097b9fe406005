//! Mistakes made on purpose, each of which has to be found.

use candlewick_cuda::kernels::{self, Geometry};

use crate::{
    program::{
        Argument::{Bf16, F32, F64, Float, Int, Long, NewBf16, NewF32, Null, U32},
        Buffer, Order, Program,
    },
    toolchain::{self, Edit, Watch},
    values::{SEED, normal},
};

type Work = fn(&mut Program, Order) -> Result<Vec<Buffer>, String>;

/// What the program says about an edit, in the first order in which it notices.
fn found(watch: Watch, source: &'static str, edit: &Edit, work: Work) -> Option<String> {
    let program = toolchain::edited(watch, source, edit);
    // Some mistakes show only in the order in which a reader overtakes a writer.
    [Order::Forward, Order::Reverse, Order::Fine]
        .into_iter()
        .find_map(|order| work(&mut Program::start(&program), order).err())
}

#[track_caller]
fn assert_found(watch: Watch, source: &'static str, edit: Edit, work: Work, message: &str) {
    let found =
        found(watch, source, &edit, work).unwrap_or_else(|| panic!("{edit:?} is not found (seed {SEED})"));
    assert!(found.contains(message), "{edit:?} is found as\n{found}\nand not as {message:?}");
}

fn sum_of_squares(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let n = 2056;
    let launch = kernels::sum_of_squares(n);
    program.launch(launch, order, &[NewF32(launch.grid[0] as usize), F32(&normal("g", n)), Long(n as i64)])
}

fn finish_norm(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let partials = normal("partials", 100);
    program.launch(
        kernels::finish_norm(),
        order,
        &[NewF32(3), F32(&partials), F64(&[1.0]), Float(1.0), Int(partials.len() as i32)],
    )
}

fn reduce_partials(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let [dw, partial] = [normal("dw", 40), normal("partial", 40 * 9)];
    program.launch(kernels::reduce_partials(40), order, &[F32(&dw), F32(&partial), Int(9), Int(40), Int(40)])
}

fn qk_norm_rope_backward(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let [dqkv, qkv] = [normal("dqkv", 9 * 192), normal("qkv", 9 * 192)];
    let [w, angles] = [normal("w", 64), normal("angles", 9 * 32)];
    let launch = kernels::qk_norm_rope_backward(9, 64);
    program.launch(
        launch,
        order,
        &[
            Bf16(&dqkv),
            NewF32(launch.grid[0] as usize * 128),
            Bf16(&qkv),
            Bf16(&w),
            Bf16(&w),
            F32(&angles),
            F32(&angles),
            Int(9),
            Int(9),
            Int(1),
            Int(1),
            Int(64),
            Float(1e-6),
        ],
    )
}

fn cross_entropy_with(
    program: &mut Program,
    order: Order,
    geometry: Geometry,
) -> Result<Vec<Buffer>, String> {
    program.launch(
        geometry,
        order,
        &[
            Bf16(&normal("logits", 2 * 72)),
            U32(&[3, 70]),
            NewF32(2),
            Float(1.0),
            Float(0.0),
            Int(72),
            Int(72),
        ],
    )
}

fn cross_entropy(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    cross_entropy_with(program, order, kernels::cross_entropy(2))
}

fn reduce_losses(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    program.launch(kernels::reduce_losses(), order, &[F64(&[0.0]), F32(&normal("losses", 99)), Int(99)])
}

fn swiglu(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let gate_up = normal("gate and up", 7 * 128);
    program.launch(kernels::swiglu_forward(7, 64), order, &[NewBf16(7 * 64), Bf16(&gate_up), Int(7), Int(64)])
}

/// One sequence of 70 tokens, two query heads and a key head: two tiles of keys.
const LENGTH: usize = 70;

fn attention_forward(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    program.launch(
        kernels::attention_forward(1, LENGTH, 2, 64),
        order,
        &[
            NewBf16(LENGTH * 128),
            NewF32(2 * LENGTH),
            Bf16(&normal("qk", LENGTH * 192)),
            Bf16(&normal("qkv", LENGTH * 256)),
            Int(LENGTH as i32),
            Int(2),
            Int(1),
            Float(0.125),
        ],
    )
}

fn attention_backward(
    program: &mut Program,
    order: Order,
    geometry: Geometry,
) -> Result<Vec<Buffer>, String> {
    program.launch(
        geometry,
        order,
        &[
            NewBf16(LENGTH * 256),
            Bf16(&normal("qk", LENGTH * 192)),
            Bf16(&normal("qkv", LENGTH * 256)),
            Bf16(&normal("dout", LENGTH * 128)),
            F32(&normal("log sums", 2 * LENGTH)),
            F32(&normal("delta", 2 * LENGTH)),
            Int(LENGTH as i32),
            Int(2),
            Int(1),
            Float(0.125),
        ],
    )
}

fn backward_keys(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    attention_backward(program, order, kernels::attention_backward_keys(1, LENGTH, 1, 64))
}

fn backward_queries(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    attention_backward(program, order, kernels::attention_backward_queries(1, LENGTH, 2, 64))
}

fn delta(program: &mut Program, order: Order) -> Result<Vec<Buffer>, String> {
    let [dout, out] = [normal("dout", 7 * 128), normal("out", 7 * 128)];
    program.launch(
        kernels::attention_delta(7, 2, 64),
        order,
        &[NewF32(14), Bf16(&dout), Bf16(&out), Int(7), Int(7), Int(2), Int(64)],
    )
}

const BLOCK: &str = "__syncthreads();";
const LANES: &str = "__syncwarp();";

/// Every barrier of the kernels: the file and which in it, a source that has it, and a launch that comes to it.
const BARRIERS: &[(&str, &str, usize, &str, Work)] = &[
    ("device.cuh", BLOCK, 0, "optimizer.cu", sum_of_squares),
    ("optimizer.cu", BLOCK, 0, "optimizer.cu", finish_norm),
    ("rms_norm.cu", BLOCK, 0, "rms_norm.cu", reduce_partials),
    ("qk_norm_rope.cu", BLOCK, 0, "qk_norm_rope.cu", qk_norm_rope_backward),
    ("cross_entropy.cu", BLOCK, 0, "cross_entropy.cu", cross_entropy),
    ("cross_entropy.cu", BLOCK, 1, "cross_entropy.cu", reduce_losses),
    ("tiles.cuh", LANES, 0, "attention_forward.cu", attention_forward),
    ("attention_forward.cu", BLOCK, 0, "attention_forward.cu", attention_forward),
    ("attention_forward.cu", BLOCK, 1, "attention_forward.cu", attention_forward),
    ("attention_backward.cu", BLOCK, 0, "attention_backward.cu", backward_keys),
    ("attention_backward.cu", BLOCK, 1, "attention_backward.cu", backward_queries),
];

#[test]
fn each_barrier_is_missed_when_it_is_taken_away() {
    let all: usize = toolchain::texts(&toolchain::kernels_folder())
        .iter()
        .filter(|(name, _)| !name.starts_with("emulation/"))
        .map(|(_, text)| text.matches(BLOCK).count() + text.matches(LANES).count())
        .sum();
    assert_eq!(all, BARRIERS.len(), "the list has to name every barrier");
    for &(file, barrier, nth, source, work) in BARRIERS {
        let edit = Edit { file, nth, from: barrier, to: "" };
        let message = found(Watch::Shadow, source, &edit, work)
            .unwrap_or_else(|| panic!("nobody misses barrier {nth}, {barrier}, of {file} (seed {SEED})"));
        let kinds = ["race: ", "uninitialised: ", "asynchrony: "];
        assert!(kinds.iter().any(|kind| message.contains(kind)), "{edit:?} is found as\n{message}");
    }
}

#[test]
fn a_barrier_that_some_threads_do_not_reach_is_found() {
    let edit =
        Edit { file: "device.cuh", nth: 0, from: BLOCK, to: "if (threadIdx.x < WARP) __syncthreads();" };
    assert_found(Watch::Sanitizers, "optimizer.cu", edit, sum_of_squares, "divergence: ");
}

#[test]
fn a_shuffle_that_some_lanes_do_not_reach_is_found() {
    let edit = Edit {
        file: "attention_backward.cu",
        nth: 0,
        from: "dot = lanes_sum(dot, lanes);",
        to: "if (task < 3) dot = lanes_sum(dot, lanes);",
    };
    assert_found(Watch::Sanitizers, "attention_backward.cu", edit, delta, "divergence: ");
}

#[test]
fn an_access_past_a_buffer_is_found() {
    let edit = Edit { file: "swiglu.cu", nth: 0, from: "token >= tokens", to: "token > tokens + 9" };
    assert_found(Watch::Sanitizers, "swiglu.cu", edit.clone(), swiglu, "heap-buffer-overflow");
    assert_found(Watch::Shadow, "swiglu.cu", edit, swiglu, "out of bounds: ");
}

#[test]
fn an_access_past_shared_memory_is_found() {
    let mut geometry = kernels::cross_entropy(2);
    geometry.shared -= 4;
    for (watch, message) in [(Watch::Sanitizers, "heap-buffer-overflow"), (Watch::Shadow, "out of bounds: ")]
    {
        let mut program = Program::start(&toolchain::program(watch));
        let found =
            cross_entropy_with(&mut program, Order::Forward, geometry).expect_err("a float too little");
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn sixteen_bytes_that_are_not_aligned_are_found() {
    let edit = Edit {
        file: "swiglu.cu",
        nth: 0,
        from: "(at - token * packs) * 8;",
        to: "(at - token * packs) * 4;",
    };
    assert_found(Watch::Sanitizers, "swiglu.cu", edit, swiglu, "misaligned address");
}

#[test]
fn a_copy_that_nobody_waits_for_is_found() {
    let edit = Edit { file: "attention_forward.cu", nth: 1, from: "copy_async_wait();", to: "" };
    assert_found(Watch::Shadow, "attention_forward.cu", edit, attention_forward, "asynchrony: ");
}

#[test]
fn shared_memory_that_nobody_wrote_is_found() {
    let edit = Edit {
        file: "device.cuh",
        nth: 0,
        from: "if (lane == 0) scratch",
        to: "if (threadIdx.x == 0) scratch",
    };
    assert_found(Watch::Shadow, "optimizer.cu", edit, sum_of_squares, "uninitialised: ");
}

#[test]
fn two_blocks_that_add_to_one_row_are_found() {
    let mut program = Program::start(&toolchain::program(Watch::Shadow));
    let (dw, dy) = (vec![0.0; 5 * 8], normal("dy", 2 * 8));
    let arguments = [F32(&dw), Bf16(&dy), U32(&[0, 1]), U32(&[0, 1, 2]), U32(&[4, 4]), Int(8)];
    let found = program
        .launch(kernels::embedding_backward(2, 8), Order::Forward, &arguments)
        .expect_err("two segments of one id");
    assert!(found.contains("race: "), "{found}");
}

#[test]
fn arguments_of_other_types_or_number_are_refused() {
    let launch = kernels::swiglu_forward(1, 8);
    let gate_up = normal("gate and up", 16);
    let given: [&[_]; 3] = [
        &[NewF32(8), Bf16(&gate_up), Int(1), Int(8)],
        &[NewBf16(8), Bf16(&gate_up), Int(1), Long(8)],
        &[NewBf16(8), Null, Int(1)],
    ];
    for arguments in given {
        let mut program = Program::start(&toolchain::program(Watch::Sanitizers));
        let refused = program.launch(launch, Order::Forward, arguments).expect_err("other arguments");
        assert!(refused.contains("argument"), "{refused}");
    }
}
