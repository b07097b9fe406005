//! SwiGLU on the packed projection.

use candlewick_cuda::kernels;

use crate::{
    program::{
        Argument::{Bf16, Int, NewBf16, Null, Same},
        Machine,
    },
    reference,
    values::{ROUNDED_ONCE, assert_close, normal},
};

const SHAPES: [(usize, usize); 5] = [(1, 8), (7, 64), (33, 264), (65, 24), (130, 72)];

#[test]
fn the_gated_product() {
    let mut machine = Machine::start();
    for (tokens, inner) in SHAPES {
        let gate_up = normal("gate and up", tokens * 2 * inner);
        let expected = reference::swiglu_forward(&gate_up, inner);
        let got = machine.launch(
            kernels::swiglu_forward(tokens, inner),
            &[NewBf16(tokens * inner), Bf16(&gate_up), Int(tokens as i32), Int(inner as i32)],
        );
        assert_close(&got[0].floats(), &expected, ROUNDED_ONCE, "h");
    }
}

#[test]
fn its_gradient_and_the_product_again() {
    let mut machine = Machine::start();
    for (tokens, inner) in SHAPES {
        let n = tokens * inner;
        let (gate_up, dh) = (normal("gate and up", 2 * n), normal("dh", n));
        let h = reference::swiglu_forward(&gate_up, inner);
        let dgate_up = reference::swiglu_backward(&dh, &gate_up, inner);
        let launch = kernels::swiglu_backward(tokens, inner);
        let sizes = [Int(tokens as i32), Int(inner as i32)];
        let [tokens_, inner_] = sizes.clone();
        let apart =
            machine.launch(launch, &[NewBf16(2 * n), NewBf16(n), Bf16(&dh), Bf16(&gate_up), tokens_, inner_]);
        assert_close(&apart[0].floats(), &dgate_up, ROUNDED_ONCE, "dgate and dup");
        assert_close(&apart[1].floats(), &h, ROUNDED_ONCE, "h");
        // In place, without the product, and with the product in dh's place.
        let [tokens_, inner_] = sizes.clone();
        let in_place = machine.launch(launch, &[Bf16(&gate_up), Null, Bf16(&dh), Same(0), tokens_, inner_]);
        assert_eq!(in_place[0], apart[0]);
        let [tokens_, inner_] = sizes;
        let in_place =
            machine.launch(launch, &[Bf16(&gate_up), Bf16(&dh), Same(1), Same(0), tokens_, inner_]);
        assert_eq!(in_place[..2], apart[..2]);
    }
}
