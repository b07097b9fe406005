//! A function of ours for every function of CUDA's libraries that is called.
//!
//! candle binds CUDA when it is linked, so a program with CUDA inside would not start where CUDA is not. Here every such
//! function is defined, hidden, as a jump through a slot of a table (`build.rs` writes them, from `symbols.txt`). A slot
//! first leads to code that keeps the arguments, has [`resolve`] look the function up, and goes on there; from then on
//! it leads to the function itself. What cannot be found becomes a function that gives an error code of its library.
use std::{
    ffi::{CString, c_int, c_void},
    sync::atomic::{AtomicPtr, Ordering},
};

use crate::library::{Library, library};

/// Where a slot's function comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A library that is looked for.
    Of(Library),
    /// CUDA's runtime, which only candle's quantised kernels call: candlewick has none of those, and no runtime is looked
    /// for. Their registration, which runs when the program is loaded, comes to nothing.
    Runtime,
}

include!(concat!(env!("OUT_DIR"), "/trampolines.rs"));

unsafe extern "C" {
    /// The table that the trampolines jump through, in the order of [`SLOTS`].
    #[link_name = "candlewick_cuda_slots"]
    static TABLE: [AtomicPtr<c_void>; SLOTS.len()];
}

/// The function behind a slot, which from now on leads there. Called by the trampolines alone.
extern "C" fn resolve(slot: usize) -> *mut c_void {
    let (source, name) = SLOTS[slot];
    let found = match source {
        Source::Runtime => None,
        Source::Of(kind) => library(kind)
            .ok()
            .and_then(|open| open.symbol(&CString::new(name).expect("a name has no zero byte"))),
    };
    let address = found.unwrap_or(match source {
        Source::Runtime if name.starts_with("__cudaRegister") || name.starts_with("__cudaUnregister") => {
            nothing as extern "C" fn() -> *mut c_void as *mut c_void
        }
        Source::Of(Library::Driver) | Source::Runtime => {
            stub_library as extern "C" fn() -> c_int as *mut c_void
        }
        Source::Of(Library::Cublas | Library::CublasLt) => {
            cublas_not_initialized as extern "C" fn() -> c_int as *mut c_void
        }
        Source::Of(Library::Curand) => curand_failed as extern "C" fn() -> c_int as *mut c_void,
    });
    // SAFETY: the table is defined by the assembly, as many atomic pointers long, and never moves.
    unsafe { TABLE[slot].store(address, Ordering::Release) };
    address
}

/// `CUDA_ERROR_STUB_LIBRARY`, and `cudaErrorStubLibrary` in the runtime.
extern "C" fn stub_library() -> c_int {
    34
}

/// `CUBLAS_STATUS_NOT_INITIALIZED`.
extern "C" fn cublas_not_initialized() -> c_int {
    1
}

/// `CURAND_STATUS_INITIALIZATION_FAILED`.
extern "C" fn curand_failed() -> c_int {
    203
}

/// A registration that registers nothing.
extern "C" fn nothing() -> *mut c_void {
    std::ptr::null_mut()
}
