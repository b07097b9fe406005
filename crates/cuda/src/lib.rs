//! CUDA: what of it a machine has, kernels and their build, and the trampolines to its libraries.
//!
//! Without the feature `cuda` this crate only looks ([`probe`]): that takes neither a compiler for CUDA nor candle's part
//! for it. With the feature the kernels are inside, and every call of a library of CUDA, candle's too, goes through a
//! trampoline of `trampolines.rs` that opens the library when it is first called.

pub mod kernels;
mod queue;
mod trouble;

#[cfg(target_os = "linux")]
mod library;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod symbols;

pub use queue::{
    Address, Argument, Element, Form, Launch, Product, ProductShape, Queue, STAGES, Span, WORKSPACE_BYTES,
};
pub use trouble::Trouble;

#[cfg(target_os = "linux")]
pub use library::{Library, NotOpen, Open, Places, library, look_in_environments, search};
#[cfg(target_os = "linux")]
pub use probe::{
    CUDA_VERSION, Driver, Found, GpuFound, LEAST_CAPABILITY, LEAST_DRIVER, Report, free_memory, probe,
};

#[cfg(all(feature = "cuda", target_os = "linux"))]
mod gpu;
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub mod images;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod products;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod timed;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod trampolines;

#[cfg(all(feature = "cuda", target_os = "linux"))]
pub use gpu::{Gpu, open, try_kernels};
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub use images::{Code, Image, image};
#[cfg(all(feature = "cuda", target_os = "linux"))]
pub use timed::{Timed, Times};
