//! A GPU that does what a [`Queue`] is given, on candle's device and stream.
use std::{
    collections::{HashMap, VecDeque},
    ffi::c_void,
    sync::Arc,
};

use candle_core::cuda::CudaDevice;
use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DriverError, HostSlice, PinnedHostSlice,
        result, sys,
    },
    nvrtc::Ptx,
};

use crate::{
    Address, Launch, Product, ProductShape, Queue, STAGES, Span, Trouble, WORKSPACE_BYTES,
    images::{Code, IMAGES, entries, parameters},
    kernels::DEFAULT_SHARED_BYTES,
    products::{Blas, Plan},
};

/// A kernel that is loaded.
struct Kernel {
    function: CudaFunction,
    /// Bytes of each parameter.
    parameters: Vec<usize>,
    /// Shared memory that a block of it may have.
    shared: u32,
}

/// A GPU with candlewick's kernels loaded and one block of memory.
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    kernels: HashMap<&'static str, Kernel>,
    plans: HashMap<(ProductShape, [u32; 3]), Plan>,
    blas: Blas,
    memory: CudaSlice<u8>,
    base: Address,
    stages: Vec<PinnedHostSlice<u8>>,
    next_stage: usize,
    /// What was asked for and is not answered, oldest first, with its bytes; and page-locked memory that is free for it.
    asked: VecDeque<(PinnedHostSlice<u8>, usize)>,
    free: Vec<PinnedHostSlice<u8>>,
}

/// Bytes of page-locked memory that an answer gets.
const ANSWER_BYTES: usize = 64;

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu").field("base", &self.base).field("bytes", &self.memory.len()).finish()
    }
}

/// candle's device for a GPU, on a stream of its own.
///
/// # Errors
/// What [`crate::probe`] finds wrong, and what candle says when it opens the device.
pub fn open(ordinal: usize) -> Result<CudaDevice, Trouble> {
    if let Some(trouble) = crate::probe(ordinal, false).trouble {
        return Err(trouble);
    }
    let device = CudaDevice::new_with_stream(ordinal).map_err(|error| Trouble {
        code: "CUDA_UNAVAILABLE",
        message: format!("the GPU cannot be opened: {error}"),
        hint: "nvidia-smi says what else uses it; restart the driver or choose another host".into(),
    })?;
    // SAFETY: everything is made, used and freed in the order of the device's one stream: candlewick makes no other.
    unsafe { device.disable_event_tracking() };
    Ok(device)
}

/// Whether candle opens a GPU and the driver takes every kernel.
pub fn try_kernels(ordinal: usize) -> Result<(), Trouble> {
    load_kernels(open(ordinal)?.cuda_stream().context()).map(drop)
}

/// Every kernel by its name, from the image that fits the GPU.
fn load_kernels(context: &Arc<CudaContext>) -> Result<HashMap<&'static str, Kernel>, Trouble> {
    let capability = context.compute_capability().map_err(|error| failed("its compute capability", error))?;
    let mut kernels = HashMap::new();
    for image in IMAGES {
        let code = match image.code(capability) {
            Code::Binary(bytes) => Ptx::from_binary(bytes.to_vec()),
            Code::Ptx(text) => Ptx::from_src(text),
        };
        let loading = |error| failed(&format!("loading the kernels of {}", image.name), error);
        let module = context.load_module(code).map_err(loading)?;
        for name in entries(image.ptx) {
            let function = module.load_function(name).map_err(loading)?;
            let parameters = parameters(name).ok_or_else(|| bug(format!("{name} has unknown parameters")))?;
            kernels.insert(name, Kernel { function, parameters, shared: DEFAULT_SHARED_BYTES });
        }
    }
    Ok(kernels)
}

impl Gpu {
    /// Loads the kernels, and takes `bytes` of memory at once.
    ///
    /// # Errors
    /// `OUT_OF_MEMORY_DEVICE` with what was wanted and what is free, `CUDA_UNAVAILABLE` for what the driver says.
    pub fn new(device: &CudaDevice, bytes: usize) -> Result<Self, Trouble> {
        let stream = device.cuda_stream();
        let context = stream.context().clone();
        let kernels = load_kernels(&context)?;
        let blas = Blas::new()?;
        // SAFETY: every value is written before it is read: buffers of the step by kernels, states by the caller.
        let memory = unsafe { stream.alloc::<u8>(bytes + WORKSPACE_BYTES) }
            .map_err(|error| no_memory(&context, bytes + WORKSPACE_BYTES, error))?;
        let base = Address(memory.device_ptr(&stream).0);
        let (plans, stages) = (HashMap::new(), Vec::new());
        let (asked, free) = (VecDeque::new(), Vec::new());
        Ok(Self { context, stream, kernels, plans, blas, memory, base, stages, next_stage: 0, asked, free })
    }

    /// Where its memory begins.
    pub fn base(&self) -> Address {
        self.base
    }

    /// Waits for everything that it was given.
    ///
    /// # Errors
    /// `CUDA_UNAVAILABLE` with what the driver says.
    pub fn wait(&self) -> Result<(), Trouble> {
        self.stream.synchronize().map_err(|error| failed("a wait", error))
    }

    /// Page-locked memory for a copy of so many bytes, by its number.
    fn stage(&mut self, bytes: usize) -> Result<usize, DriverError> {
        let at = self.next_stage;
        self.next_stage = (at + 1) % STAGES;
        if self.stages.get(at).is_none_or(|stage| stage.len() < bytes) {
            // SAFETY: bytes of any value are valid, and each is written before it is copied.
            let stage = unsafe { self.context.alloc_pinned::<u8>(bytes) }?;
            match self.stages.get_mut(at) {
                Some(smaller) => *smaller = stage,
                None => self.stages.push(stage),
            }
        }
        Ok(at)
    }

    /// # Panics
    /// When the span is not in this memory.
    fn assert_inside(&self, span: Span) {
        let end = self.base.plus(self.memory.len() - WORKSPACE_BYTES);
        assert!(span.at >= self.base && span.at.plus(span.bytes()) <= end, "{span:?} of {self:?}");
    }
}

impl Queue for Gpu {
    fn launch(&mut self, launch: &Launch) -> Result<(), Trouble> {
        let geometry = &launch.geometry;
        let failed = |error| failed(geometry.kernel, error);
        let Some(kernel) = self.kernels.get_mut(geometry.kernel) else {
            return Err(bug(format!("there is no kernel {}", geometry.kernel)));
        };
        let given = launch.arguments.iter().map(|argument| argument.size());
        assert!(given.eq(kernel.parameters.iter().copied()), "{launch:?} has other parameters");
        self.context.bind_to_thread().map_err(failed)?;
        if geometry.shared > kernel.shared {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            kernel.function.set_attribute(attribute, geometry.shared.cast_signed()).map_err(failed)?;
            kernel.shared = geometry.shared;
        }
        let mut words: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits()).collect();
        let mut pointers: Vec<*mut c_void> =
            words.iter_mut().map(|word| std::ptr::from_mut(word).cast()).collect();
        let [x, y, z] = geometry.grid;
        // SAFETY: the module stays loaded as long as the function is kept; there is a word for each parameter, as was just
        // asserted, which the driver reads before it returns; and what kernels touch is the GPU's memory, in the order of
        // one stream.
        unsafe {
            result::launch_kernel(
                kernel.function.cu_function(),
                (x, y, z),
                (geometry.block, 1, 1),
                geometry.shared,
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(failed)
    }

    fn product(&mut self, product: &Product) -> Result<(), Trouble> {
        let spans = [product.left, product.right, product.result];
        // What cuBLAS may assume of each: the largest power of two that divides its address, 256 at most.
        let alignments = spans.map(|span| 1 << span.at.0.trailing_zeros().min(8));
        let key = (product.shape, alignments);
        if !self.plans.contains_key(&key) {
            let plan = Plan::new(&self.blas, &product.shape, alignments)?;
            self.plans.insert(key, plan);
        }
        self.context.bind_to_thread().map_err(|error| failed("a product", error))?;
        let workspace = self.base.plus(self.memory.len() - WORKSPACE_BYTES);
        self.plans[&key].run(&self.blas, product, workspace, &self.stream)
    }

    fn zero(&mut self, span: Span) -> Result<(), Trouble> {
        let failed = |error| failed("zeros", error);
        self.assert_inside(span);
        self.context.bind_to_thread().map_err(failed)?;
        // SAFETY: the bytes lie in this memory, as was just asserted.
        unsafe { result::memset_d8_async(span.at.0, 0, span.bytes(), self.stream.cu_stream()) }
            .map_err(failed)
    }

    fn upload(&mut self, to: Span, bytes: &[u8]) -> Result<(), Trouble> {
        let failed = |error| failed("a copy to the GPU", error);
        self.assert_inside(to);
        assert!(bytes.len() <= to.bytes(), "{} bytes to {to:?}", bytes.len());
        let stage = self.stage(bytes.len()).map_err(failed)?;
        let stage = &mut self.stages[stage];
        // Waits where the copy from it before is still under way.
        stage.as_mut_slice().map_err(failed)?[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: it is read in the order of this stream, where an event is recorded as the guard falls.
        let (source, _under_way) = unsafe { stage.stream_synced_slice(&self.stream) };
        // SAFETY: the bytes lie in this memory, and the stage is not written again before that event.
        unsafe { result::memcpy_htod_async(to.at.0, &source[..bytes.len()], self.stream.cu_stream()) }
            .map_err(failed)
    }

    fn ask(&mut self, from: Span) -> Result<(), Trouble> {
        let failed = |error| failed("a copy from the GPU", error);
        self.assert_inside(from);
        assert!(from.bytes() <= ANSWER_BYTES, "{from:?} is more than an answer");
        self.context.bind_to_thread().map_err(failed)?;
        let mut answer = match self.free.pop() {
            Some(answer) => answer,
            // SAFETY: bytes of any value are valid.
            None => unsafe { self.context.alloc_pinned::<u8>(ANSWER_BYTES) }.map_err(failed)?,
        };
        {
            // SAFETY: it is written in the order of this stream, where an event is recorded as the guard falls.
            let (into, _under_way) = unsafe { answer.stream_synced_mut_slice(&self.stream) };
            // SAFETY: the span lies in this memory, as was asserted; the answer has room for it, and is neither read nor
            // freed before that event: `answer` waits for it, and dropping page-locked memory does.
            unsafe {
                result::memcpy_dtoh_async(&mut into[..from.bytes()], from.at.0, self.stream.cu_stream())
            }
            .map_err(failed)?;
        }
        self.asked.push_back((answer, from.bytes()));
        Ok(())
    }

    fn answer(&mut self, into: &mut [u8]) -> Result<(), Trouble> {
        let (answer, bytes) = self.asked.pop_front().expect("something was asked for");
        assert_eq!(into.len(), bytes, "bytes of the answer");
        into.copy_from_slice(&answer.as_slice().map_err(|error| failed("a step", error))?[..bytes]);
        self.free.push(answer);
        Ok(())
    }

    fn download(&self, from: Span, into: &mut [u8]) -> Result<(), Trouble> {
        let failed = |error| failed("a copy from the GPU", error);
        self.assert_inside(from);
        assert!(into.len() <= from.bytes(), "{} bytes of {from:?}", into.len());
        self.context.bind_to_thread().map_err(failed)?;
        // SAFETY: the bytes lie in this memory, and `into` is borrowed until the stream has come here.
        unsafe { result::memcpy_dtoh_async(into, from.at.0, self.stream.cu_stream()) }.map_err(failed)?;
        self.stream.synchronize().map_err(failed)
    }
}

fn bug(message: String) -> Trouble {
    Trouble {
        code: "INTERNAL",
        message,
        hint: "this is a bug of candlewick; please report it with config.yaml".into(),
    }
}

/// What the driver says of something that is under way. After an error of a kernel nothing on the GPU can be trusted.
fn failed(what: &str, error: DriverError) -> Trouble {
    Trouble {
        code: "CUDA_UNAVAILABLE",
        message: format!("the GPU fails at {what}: {error}"),
        hint: "the run goes on from its last checkpoint; where it comes again, look at the driver's log (dmesg, Xid) or choose another host".into(),
    }
}

fn no_memory(context: &CudaContext, wanted: usize, error: DriverError) -> Trouble {
    if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
        return failed("taking memory", error);
    }
    let megabytes = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
    let free = match context.mem_get_info() {
        Ok((free, total)) => format!("{} are free of {}", megabytes(free), megabytes(total)),
        Err(_) => "how much is free is not known".into(),
    };
    Trouble {
        code: "OUT_OF_MEMORY_DEVICE",
        message: format!("the run needs {} of the GPU's memory, and {free}", megabytes(wanted)),
        hint: "lower training.micro_batch_size, or end what else is on the GPU (nvidia-smi names it)".into(),
    }
}
