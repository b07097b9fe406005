use std::path::PathBuf;

use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde_json::{Value, json};

use crate::{failure::Failure, promise::Promise};

/// Whether this binary has CUDA inside.
#[napi]
pub fn has_cuda() -> bool {
    cfg!(feature = "cuda")
}

/// JSON: `built` (whether this binary has CUDA inside), `driver`, `gpus`, `libraries`, `trouble` (null, or why GPU 0 cannot
/// be used). `environments` are Python environments with `nvidia-*` wheels; those of the first call count.
#[napi]
pub fn cuda_report(environments: Vec<String>) -> napi::Result<String> {
    Ok(report(environments, false).map_err(Failure::from)?.to_string())
}

/// As `cudaReport`, on a thread of its own, and each GPU is asked for its free memory too. With CUDA
/// inside, GPU 0 has to take the kernels as well.
#[napi(ts_return_type = "Promise<string>")]
pub fn look_at_cuda(env: &Env, environments: Vec<String>) -> napi::Result<Object<'_>> {
    let (promise, object) = Promise::<String>::new(env)?;
    let body = move || {
        promise.settle(report(environments, true).map(|report| report.to_string()).map_err(Failure::from))
    };
    std::thread::Builder::new()
        .name("cuda".into())
        .spawn(body)
        .expect("the operating system starts a thread");
    Ok(object)
}

#[cfg(target_os = "linux")]
fn report(environments: Vec<String>, free: bool) -> serde_json::Result<Value> {
    candlewick_cuda::look_in_environments(environments.into_iter().map(PathBuf::from).collect());
    let report = candlewick_cuda::probe(free);
    #[cfg(feature = "cuda")]
    let report = {
        let tried = || if free { candlewick_cuda::try_kernels().err() } else { None };
        candlewick_cuda::Report { trouble: report.trouble.clone().or_else(tried), ..report }
    };
    let mut report = serde_json::to_value(report)?;
    report["built"] = json!(has_cuda());
    Ok(report)
}

#[cfg(not(target_os = "linux"))]
fn report(_environments: Vec<String>, _free: bool) -> serde_json::Result<Value> {
    let trouble = json!({
        "code": "CUDA_UNAVAILABLE",
        "message": "candlewick trains on a GPU under Linux alone",
        "hint": "train with --device cpu, or on a Linux machine with an NVIDIA GPU",
    });
    Ok(json!({ "built": false, "driver": null, "gpus": [], "libraries": [], "trouble": trouble }))
}
