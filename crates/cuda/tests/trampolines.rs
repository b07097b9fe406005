//! Calls of CUDA's libraries on a machine that has none, and on one whose libraries the test has made.
#![cfg(all(feature = "cuda", target_os = "linux"))]

use std::{
    ffi::c_void,
    path::Path,
    process::{Command, Stdio},
};

use candle_core::cuda::cudarc::{cublas::sys as cublas, curand::sys as curand, driver::sys as driver};
use candlewick_cuda::{Code, image, images::IMAGES};

/// A number that no other argument has.
fn pointer(value: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(value)
}

fn launch() -> driver::CUresult {
    // SAFETY: nothing behind the pointers is touched: neither the trampoline nor the test's library looks there.
    unsafe {
        let (kernel, stream) = (pointer(101).cast(), pointer(109).cast());
        let (parameters, extra) = (pointer(110).cast(), pointer(111).cast());
        driver::cuLaunchKernel(kernel, 102, 103, 104, 105, 106, 107, 108, stream, parameters, extra)
    }
}

fn generator() -> curand::curandStatus_t {
    let mut generator = pointer(7).cast();
    let kind = curand::curandRngType_t::CURAND_RNG_PSEUDO_DEFAULT;
    // SAFETY: the function writes a pointer.
    unsafe { curand::curandCreateGenerator(&mut generator, kind) }
}

fn handle() -> cublas::cublasStatus_t {
    let mut handle = std::ptr::null_mut();
    // SAFETY: the function writes a pointer.
    unsafe { cublas::cublasCreate_v2(&mut handle) }
}

/// Runs one of the tests below, which are for a process of their own.
fn in_a_process(name: &str, folder: Option<&Path>) {
    let mut command = Command::new(std::env::current_exe().expect("the test is a program"));
    command.args([name, "--exact", "--ignored", "--nocapture"]).stdin(Stdio::null());
    for name in ["CUDA_HOME", "CUDA_PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV"] {
        command.env_remove(name);
    }
    if let Some(folder) = folder {
        command.env("LD_LIBRARY_PATH", folder).env("CUDA_HOME", folder);
    }
    let output = command.output().expect("the test starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{output:?}");
}

#[test]
fn without_libraries_every_call_gives_its_librarys_error() {
    in_a_process("missing", None);
}

#[test]
#[ignore = "run by the test above, where no library is found"]
fn missing() {
    if candlewick_cuda::library(candlewick_cuda::Library::Driver).is_ok() {
        // This machine has a driver: what is asked here is asked in CI.
        return;
    }
    for _ in 0..2 {
        assert_eq!(launch(), driver::CUresult::CUDA_ERROR_STUB_LIBRARY);
        assert_eq!(generator(), curand::curandStatus_t::CURAND_STATUS_INITIALIZATION_FAILED);
        assert_eq!(handle(), cublas::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED);
    }
    let error = candle_core::Device::new_cuda(0).expect_err("there is no driver");
    assert!(error.to_string().contains("CUDA_ERROR_STUB_LIBRARY"), "{error}");
}

#[test]
fn with_libraries_every_argument_arrives() {
    let folder = tempfile::tempdir().expect("a folder");
    let lib64 = folder.path().join("lib64");
    std::fs::create_dir(&lib64).expect("a folder");
    // Each gives an error unless every argument is what the test passes.
    compile(
        &folder.path().join("libcuda.so.1"),
        "typedef unsigned long u; int cuLaunchKernel(u a, int b, int c, int d, int e, int f, int g, int h, u i, u j, u k) \
         { return a == 101 && b == 102 && c == 103 && d == 104 && e == 105 && f == 106 && g == 107 && h == 108 \
           && i == 109 && j == 110 && k == 111 ? 0 : 1; }",
    );
    compile(
        &lib64.join("libcurand.so.10"),
        "int curandCreateGenerator(void **a, int b) { return *a == (void *)7 && b == 100 ? 0 : 103; }",
    );
    in_a_process("found", Some(folder.path()));
}

#[test]
#[ignore = "run by the test above, beside libraries that it has made"]
fn found() {
    // The first call looks the function up, the second goes there straight.
    for _ in 0..2 {
        assert_eq!(launch(), driver::CUresult::CUDA_SUCCESS);
        assert_eq!(generator(), curand::curandStatus_t::CURAND_STATUS_SUCCESS);
        assert_eq!(handle(), cublas::cublasStatus_t::CUBLAS_STATUS_NOT_INITIALIZED, "it was not made");
    }
}

fn compile(file: &Path, source: &str) {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-x", "c", "-", "-o"]).arg(file).stdin(Stdio::piped());
    let mut child = command.spawn().expect("there is a C compiler");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), source.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn each_kernel_is_there_in_every_form() {
    assert!(!IMAGES.is_empty());
    for each in IMAGES {
        for binary in [each.sm_80, each.sm_90a] {
            assert!(binary.starts_with(b"\x7fELF"), "{}", each.name);
        }
        assert!(each.ptx.contains(".version 9.0") && each.ptx.contains(".target sm_80"), "{}", each.name);
        assert_eq!(image(each.name).map(|found| found.name), Some(each.name));
        assert_eq!(each.code((8, 0)), Code::Binary(each.sm_80));
        assert_eq!(each.code((8, 9)), Code::Binary(each.sm_80));
        assert_eq!(each.code((9, 0)), Code::Binary(each.sm_90a));
        assert_eq!(each.code((10, 0)), Code::Ptx(each.ptx));
        assert_eq!(each.code((12, 0)), Code::Ptx(each.ptx));
    }
}
