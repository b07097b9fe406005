use std::path::PathBuf;

use candlewick_model::ModelConfig;
use napi::{Env, bindgen_prelude::Object};
use napi_derive::napi;
use serde_json::{Value, json};

use crate::{failure::Failure, promise::Promise};

/// Whether this binary has CUDA inside.
#[napi]
pub fn has_cuda() -> bool {
    cfg!(feature = "cuda")
}

/// JSON: `built` (whether this binary has CUDA inside), `driver`, `gpus`, `libraries`, `trouble` (null, or why the GPU
/// of this number cannot be used). `environments` are Python environments with `nvidia-*` wheels; those of the first call
/// count.
#[napi]
pub fn cuda_report(environments: Vec<String>, ordinal: u32) -> napi::Result<String> {
    Ok(report(environments, ordinal as usize, false).map_err(Failure::from)?.to_string())
}

/// Bytes of a GPU's memory that nobody uses; null where that cannot be said.
#[napi]
pub fn free_gpu_memory(ordinal: u32) -> Option<f64> {
    free_memory(ordinal as usize).map(|bytes| bytes as f64)
}

#[cfg(target_os = "linux")]
use candlewick_cuda::free_memory;

#[cfg(not(target_os = "linux"))]
fn free_memory(_ordinal: usize) -> Option<u64> {
    None
}

/// Throws CONFIG_INVALID, naming the key, for a model (JSON, as in the configuration) that the kernels are not made for.
#[napi]
pub fn check_model_for_cuda(model: String) -> napi::Result<()> {
    let model: ModelConfig = serde_json::from_str(&model).map_err(Failure::from)?;
    candlewick_train::backend::cuda::check(&model).map_err(Failure::from)?;
    Ok(())
}

/// As `cudaReport`, on a thread of its own, and each GPU is asked for its free memory too. With CUDA
/// inside, the GPU has to take the kernels as well.
#[napi(ts_return_type = "Promise<string>")]
pub fn look_at_cuda(env: &Env, environments: Vec<String>, ordinal: u32) -> napi::Result<Object<'_>> {
    let (promise, object) = Promise::<String>::new(env)?;
    let body = move || {
        let report = report(environments, ordinal as usize, true);
        promise.settle(report.map(|report| report.to_string()).map_err(Failure::from));
    };
    std::thread::Builder::new()
        .name("cuda".into())
        .spawn(body)
        .expect("the operating system starts a thread");
    Ok(object)
}

#[cfg(target_os = "linux")]
fn report(environments: Vec<String>, ordinal: usize, free: bool) -> serde_json::Result<Value> {
    candlewick_cuda::look_in_environments(environments.into_iter().map(PathBuf::from).collect());
    let report = candlewick_cuda::probe(ordinal, free);
    #[cfg(feature = "cuda")]
    let report = {
        let tried = || if free { candlewick_cuda::try_kernels(ordinal).err() } else { None };
        candlewick_cuda::Report { trouble: report.trouble.clone().or_else(tried), ..report }
    };
    let mut report = serde_json::to_value(report)?;
    report["built"] = json!(has_cuda());
    Ok(report)
}

#[cfg(not(target_os = "linux"))]
fn report(_environments: Vec<String>, _ordinal: usize, _free: bool) -> serde_json::Result<Value> {
    let trouble = json!({
        "code": "CUDA_UNAVAILABLE",
        "message": "candlewick trains on a GPU under Linux alone",
        "hint": "train with --device cpu, or on a Linux machine with an NVIDIA GPU",
    });
    Ok(
        json!({ "built": false, "driver": null, "gpus": [], "libraries": [], "wheels": [], "trouble": trouble }),
    )
}
