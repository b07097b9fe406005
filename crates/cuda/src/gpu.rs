//! Opens GPU 0 for candle, and loads candlewick's kernels on it.
use std::{collections::HashMap, sync::Arc};

use candle_core::{Device, cuda::CudaDevice};
use cudarc::{
    driver::{CudaContext, CudaFunction, DriverError},
    nvrtc::Ptx,
};

use crate::{
    Trouble,
    images::{Code, IMAGES, entries},
};

/// candle's device for GPU 0, on a stream of its own.
///
/// # Errors
/// What [`crate::probe`] finds wrong, and what candle says when it opens the device.
pub fn open() -> Result<Device, Trouble> {
    Ok(Device::Cuda(open_cuda()?))
}

/// Whether candle opens GPU 0 and the driver takes every kernel.
pub fn try_kernels() -> Result<(), Trouble> {
    load_kernels(open_cuda()?.cuda_stream().context()).map(drop)
}

fn open_cuda() -> Result<CudaDevice, Trouble> {
    if let Some(trouble) = crate::probe(false).trouble {
        return Err(trouble);
    }
    let device = CudaDevice::new_with_stream(0).map_err(|error| Trouble {
        code: "CUDA_UNAVAILABLE",
        message: format!("the GPU cannot be opened: {error}"),
        hint: "nvidia-smi says what else uses it; restart the driver or choose another host".into(),
    })?;
    // SAFETY: everything is made, used and freed in the order of the device's one stream: candlewick makes no other.
    unsafe { device.disable_event_tracking() };
    Ok(device)
}

/// Every kernel by its name, from the image that fits the GPU.
fn load_kernels(context: &Arc<CudaContext>) -> Result<HashMap<&'static str, CudaFunction>, Trouble> {
    let capability = context.compute_capability().map_err(|error| failed("its compute capability", error))?;
    let mut functions = HashMap::new();
    for image in IMAGES {
        let code = match image.code(capability) {
            Code::Binary(bytes) => Ptx::from_binary(bytes.to_vec()),
            Code::Ptx(text) => Ptx::from_src(text),
        };
        let loading = |error| failed(&format!("loading the kernels of {}", image.name), error);
        let module = context.load_module(code).map_err(loading)?;
        for name in entries(image.ptx) {
            functions.insert(name, module.load_function(name).map_err(loading)?);
        }
    }
    Ok(functions)
}

/// What the driver says of something that is under way. After an error of a kernel nothing on the GPU can be trusted.
fn failed(what: &str, error: DriverError) -> Trouble {
    Trouble {
        code: "CUDA_UNAVAILABLE",
        message: format!("the GPU fails at {what}: {error}"),
        hint: "the run goes on from its last checkpoint; where it comes again, look at the driver's log (dmesg, Xid) or choose another host".into(),
    }
}
