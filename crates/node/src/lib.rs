//! The binding: thin classes over the other crates, and the only code that knows Node.
//!
//! Nothing here blocks JavaScript's thread. What takes time runs on a [`worker::Worker`]'s thread and settles a
//! [`promise::Promise`]; what has to be waited for is pulled through one. Errors cross as JSON in the error's reason
//! ([`failure::Failure`]) and become classes again in `src/native`.
#![allow(unreachable_pub, reason = "napi exports what is pub, in whatever module it stands")]
#![cfg_attr(
    test,
    allow(dead_code, reason = "napi registers nothing in a test build, which clippy makes all the same")
)]

mod cuda;
mod estimate;
mod failure;
mod feed;
mod held_out;
mod lent;
mod link;
mod memory;
mod model;
mod pipe;
mod promise;
mod texts;
mod tokenizer;
mod tokenizer_inspect;
mod tokenizer_trainer;
mod trainer;
mod worker;

use napi_derive::napi;

/// Runs when Node loads this binary.
#[napi_derive::module_init]
fn init() {
    memory::share_one_arena();
}

/// Version of this binary; the same as the package's.
#[napi]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").into()
}
