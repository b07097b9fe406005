//! The kernels, compiled as host C++ and run without a GPU, against the CPU's kernels.
//!
//! Every launch is made by two programs of the same sources. In one AddressSanitizer and UndefinedBehaviorSanitizer
//! watch; the other keeps a record of who touched what, which finds races and reads of memory that holds nothing. The
//! threads of a block run in several orders, and the results have to be bitwise the same in all of them.
//!
//! Inputs are rounded to bf16 before both sides get them, so that only what the kernels round themselves differs. One
//! rounding to bf16 is off by 2⁻⁹ at most, 0.2 %; attention also rounds P and dS.

#![cfg(unix)]

mod attention;
mod cross_entropy;
mod embedding;
mod manifest;
mod norms;
mod optimizer;
mod planted;
mod program;
mod reference;
mod swiglu;
mod toolchain;
mod values;
