//! What of CUDA this machine has: the driver, its GPUs, the libraries, and why it will not do.
use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    path::PathBuf,
};

use serde::Serialize;

use crate::{
    Trouble,
    library::{Library, NotOpen, library},
    symbols,
};

/// The version of CUDA that kernels and libraries are of, as the driver counts: 1000 · major + 10 · minor.
pub const CUDA_VERSION: i32 = 13_000;
/// The first driver that knows it.
pub const LEAST_DRIVER: &str = "580.65";
/// The oldest compute capability that kernels are made for.
pub const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// A GPU as the driver describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GpuFound {
    /// Its name, for instance `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub total: u64,
    /// Bytes that nobody uses; none where that was not asked or cannot be said.
    pub free: Option<u64>,
}

/// The driver that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Driver {
    /// Where its library was found.
    pub path: PathBuf,
    /// The newest version of CUDA that it knows, for instance `13.0`.
    pub cuda: String,
    /// Its own version, for instance `580.95.05`, where the system says it.
    pub version: Option<String>,
}

/// A library that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Its file name.
    pub name: &'static str,
    /// Where it was found; the bare name where the system's loader found it.
    pub path: PathBuf,
}

/// All that a look at the machine gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The driver.
    pub driver: Option<Driver>,
    /// GPUs that this process may use, in the driver's order.
    pub gpus: Vec<GpuFound>,
    /// Libraries of CUDA beside the driver's.
    pub libraries: Vec<Found>,
    /// What pip takes to bring those that were not found.
    pub wheels: Vec<&'static str>,
    /// The first thing that keeps this process from using the GPU that was asked for.
    pub trouble: Option<Trouble>,
}

impl Report {
    fn blame(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }
}

fn unavailable(message: impl Into<String>, hint: impl Into<String>) -> Trouble {
    Trouble { code: "CUDA_UNAVAILABLE", message: message.into(), hint: hint.into() }
}

/// Looks at the machine, for a GPU by its number in the driver's order. `free` asks each GPU for its free memory, which
/// makes a context on it: up to a second a GPU.
/// What a library does wrong comes out as [`Report::trouble`], never as a panic.
pub fn probe(ordinal: usize, free: bool) -> Report {
    let mut report = Report::default();
    match library(Library::Driver) {
        Ok(open) => match Calls::of(|name| open.symbol(name)) {
            Ok(calls) => look_at_driver(&mut report, &calls, open.path.clone(), (ordinal, free)),
            Err(missing) => report.blame(missing_symbols(Library::Driver, &open.path, &missing)),
        },
        Err(failed) => report.blame(no_driver(failed)),
    }
    for kind in Library::ALL {
        let open = match library(kind) {
            Ok(open) => open,
            Err(failed) => {
                report.blame(no_library(failed));
                report.wheels.extend(kind.wheel().map(wheel_requirement));
                continue;
            }
        };
        if kind != Library::Driver {
            report.libraries.push(Found { name: kind.file(), path: open.path.clone() });
        }
        let missing: Vec<_> = symbols::wanted(kind)
            .filter(|name| CString::new(*name).is_ok_and(|name| open.symbol(&name).is_none()))
            .collect();
        if !missing.is_empty() {
            report.blame(missing_symbols(kind, &open.path, &missing));
        }
    }
    // cuBLAS and cuBLASLt come together.
    report.wheels.dedup();
    report
}

/// Bytes of a GPU's memory that nobody uses; `None` where that cannot be said. It makes a context on the GPU, which takes up
/// to a second.
pub fn free_memory(ordinal: usize) -> Option<u64> {
    let open = library(Library::Driver).ok()?;
    let calls = Calls::of(|name| open.symbol(name)).ok()?;
    // SAFETY: flags must be 0.
    let begun = unsafe { (calls.init)(0) } == 0;
    let ordinal = c_int::try_from(ordinal).ok().filter(|_| begun)?;
    look_at_gpu(&calls, ordinal, true).ok()?.free
}

fn look_at_driver(report: &mut Report, calls: &Calls, path: PathBuf, (wanted, free): (usize, bool)) {
    let mut version = 0;
    // SAFETY: the function writes an int.
    let code = unsafe { (calls.driver_get_version)(&mut version) };
    let cuda = format!("{}.{}", version / 1000, version % 1000 / 10);
    let own = driver_version();
    report.driver = Some(Driver { path, cuda: cuda.clone(), version: own.clone() });
    if code != 0 {
        return report.blame(failed_call("cuDriverGetVersion", code));
    }
    if version < CUDA_VERSION {
        let own = own.map(|version| format!(" {version}")).unwrap_or_default();
        let needed = format!("{}.{}", CUDA_VERSION / 1000, CUDA_VERSION % 1000 / 10);
        report.blame(Trouble {
            code: "CUDA_DRIVER_TOO_OLD",
            message: format!("the NVIDIA driver{own} knows CUDA up to {cuda}, and candlewick needs {needed}"),
            hint: format!(
                "choose a host or image with driver {LEAST_DRIVER} or newer (a container uses its host's driver), or train with --device cpu"
            ),
        });
    }
    // SAFETY: flags must be 0.
    let code = unsafe { (calls.init)(0) };
    if code != 0 {
        return report.blame(failed_call("cuInit", code));
    }
    let mut count = 0;
    // SAFETY: the function writes an int.
    let code = unsafe { (calls.device_get_count)(&mut count) };
    if code != 0 {
        return report.blame(failed_call("cuDeviceGetCount", code));
    }
    for ordinal in 0..count {
        match look_at_gpu(calls, ordinal, free) {
            Ok(gpu) => report.gpus.push(gpu),
            Err(trouble) => report.blame(trouble),
        }
    }
    match report.gpus.get(wanted) {
        None if report.gpus.is_empty() => report.blame(failed_call("cuDeviceGetCount", NO_DEVICE)),
        None => {
            let last = report.gpus.len() - 1;
            let message =
                format!("there is no GPU {wanted}: the last one that this process may use is {last}");
            report.blame(unavailable(
                message,
                "name a GPU that nvidia-smi lists, counted from 0, or train with --device cpu",
            ));
        }
        Some(GpuFound { name, capability, .. }) if *capability < LEAST_CAPABILITY => {
            let message = format!(
                "{name} has compute capability {}.{}, and candlewick's kernels need {}.{}",
                capability.0, capability.1, LEAST_CAPABILITY.0, LEAST_CAPABILITY.1
            );
            let hint = "use an A100, RTX 30 or newer (CUDA_VISIBLE_DEVICES chooses among several), or train with --device cpu";
            report.blame(unavailable(message, hint));
        }
        Some(_) => {}
    }
}

fn look_at_gpu(calls: &Calls, ordinal: c_int, free: bool) -> Result<GpuFound, Trouble> {
    let check = |function, code| if code == 0 { Ok(()) } else { Err(failed_call(function, code)) };
    let (mut device, mut name) = (0, [0 as c_char; 256]);
    let (mut major, mut minor, mut total) = (0, 0, 0usize);
    // SAFETY: each function writes what its pointer is to; the name ends within the length given, and one byte is left.
    unsafe {
        check("cuDeviceGet", (calls.device_get)(&mut device, ordinal))?;
        check("cuDeviceGetName", (calls.device_get_name)(name.as_mut_ptr(), 255, device))?;
        check("cuDeviceGetAttribute", (calls.device_get_attribute)(&mut major, CAPABILITY_MAJOR, device))?;
        check("cuDeviceGetAttribute", (calls.device_get_attribute)(&mut minor, CAPABILITY_MINOR, device))?;
        check("cuDeviceTotalMem", (calls.device_total_mem)(&mut total, device))?;
    }
    // SAFETY: 255 bytes at most were written over zeros: a C string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let free = if free { free_in_context(calls, device)? } else { None };
    Ok(GpuFound { name, capability: (major, minor), total: total as u64, free })
}

/// Asks in the device's primary context, which is retained for as long as that takes.
fn free_in_context(calls: &Calls, device: c_int) -> Result<Option<u64>, Trouble> {
    let (mut context, mut free, mut total) = (std::ptr::null_mut(), 0usize, 0usize);
    // SAFETY: each function writes what its pointer is to; what is pushed is popped, what is retained is released.
    unsafe {
        let code = (calls.primary_retain)(&mut context, device);
        if code != 0 {
            return Err(failed_call("cuDevicePrimaryCtxRetain", code));
        }
        let told = (calls.push)(context) == 0 && {
            let told = (calls.mem_get_info)(&mut free, &mut total) == 0;
            (calls.pop)(&mut context);
            told
        };
        (calls.primary_release)(device);
        Ok(told.then_some(free as u64))
    }
}

/// As the kernel's module says; absent in some containers and on WSL.
fn driver_version() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_version = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_owned)
}

fn no_driver(failed: &NotOpen) -> Trouble {
    let name = failed.library.file();
    if let Some(said) = failed.broken.first() {
        return unavailable(
            format!("the NVIDIA driver's library does not open: {said}"),
            "reinstall the driver, or train with --device cpu",
        );
    }
    if std::path::Path::new("/dev/nvidiactl").exists() {
        return unavailable(
            format!("a GPU is here (/dev/nvidiactl), but not the driver's library {name}"),
            "start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility and --gpus all, or put the folder that holds it on LD_LIBRARY_PATH",
        );
    }
    unavailable(
        format!("no NVIDIA driver: {name} was not found"),
        format!(
            "on a machine with a GPU, install its driver until nvidia-smi works, and start a container with --gpus all (looked in {}); else train with --device cpu",
            failed.looked_in.join(", ")
        ),
    )
}

fn no_library(failed: &NotOpen) -> Trouble {
    let name = failed.library.file();
    let hint = match failed.library.wheel() {
        Some(wheel) => format!(
            "install it into the Python environment of the run: pip install '{}'; or set CUDA_HOME to a CUDA 13 toolkit",
            wheel_requirement(wheel)
        ),
        None => return no_driver(failed),
    };
    if let Some(said) = failed.broken.first() {
        return unavailable(format!("CUDA's library {name} does not open: {said}"), hint);
    }
    let others = match failed.other_versions.first() {
        Some(path) => format!("; {} is of another version", path.display()),
        None => String::new(),
    };
    let looked = failed.looked_in.join(", ");
    unavailable(format!("CUDA's library {name} was not found in {looked}{others}"), hint)
}

/// What pip takes: the versions with the interface that was linked for.
fn wheel_requirement(wheel: &str) -> &'static str {
    match wheel {
        "nvidia-curand" => "nvidia-curand>=10.4,<11",
        _ => "nvidia-cublas>=13,<14",
    }
}

fn missing_symbols(library: Library, path: &std::path::Path, missing: &[&str]) -> Trouble {
    let (first, rest) = (missing.first().copied().unwrap_or_default(), missing.len().saturating_sub(1));
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    let hint = match library.wheel() {
        None => {
            format!("choose a host or image with driver {LEAST_DRIVER} or newer, or train with --device cpu")
        }
        Some(wheel) => format!(
            "another library of that name is in the way: pip install '{}', or set CUDA_HOME to a CUDA 13 toolkit",
            wheel_requirement(wheel)
        ),
    };
    unavailable(format!("{} has no function {first}{more}", path.display()), hint)
}

const NO_DEVICE: c_int = 100;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// What a failing call of the driver means, by its number; the commonest on rented machines have a cure.
fn failed_call(function: &str, code: c_int) -> Trouble {
    let restart = "restart the driver or the machine, or choose another host; else train with --device cpu";
    let (name, hint) = match code {
        2 => ("out of memory", "another process fills the GPU: nvidia-smi names it"),
        34 => ("a stub library", "a stub stands before the driver: take stubs folders off LD_LIBRARY_PATH"),
        46 => {
            ("the device is busy or not available", "another process has it for itself: nvidia-smi names it")
        }
        NO_DEVICE => (
            "no GPU",
            if std::env::var_os("CUDA_VISIBLE_DEVICES").is_some() {
                "CUDA_VISIBLE_DEVICES is set: unset it, or name a GPU that nvidia-smi lists"
            } else {
                "nvidia-smi must list a GPU; in a container, start it with --gpus all; else train with --device cpu"
            },
        ),
        101 => ("no such device", "CUDA_VISIBLE_DEVICES names a GPU that is not there"),
        802 => (
            "the system is not ready",
            "start the fabric manager (systemctl start nvidia-fabricmanager), or choose another host",
        ),
        803 => (
            "the driver's library and its kernel module differ",
            "restart after the driver's update; in a container, its libcuda must be the host's",
        ),
        804 => (
            "forward compatibility does not work on this GPU",
            "a compat folder stands before the driver on LD_LIBRARY_PATH: take it off",
        ),
        999 => ("an unknown error", restart),
        _ => ("an error", restart),
    };
    unavailable(format!("the NVIDIA driver fails: {function} gives {name} (code {code})"), hint)
}

/// Functions of the driver, with the signatures that cuda.h has.
macro_rules! calls {
    ($($field:ident: $name:literal($($argument:ty),*);)*) => {
        /// The driver's functions that a look takes. They have been in every driver for ten years.
        struct Calls {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Calls {
            /// From addresses by name; else the names that there are no addresses for.
            fn of(find: impl Fn(&CStr) -> Option<*mut c_void>) -> Result<Self, Vec<&'static str>> {
                let mut missing = Vec::new();
                $(
                    let $field = find($name);
                    if $field.is_none() {
                        missing.extend($name.to_str());
                    }
                )*
                match ($($field,)*) {
                    ($(Some($field),)*) => Ok(Self {
                        // SAFETY: the address of the function of this name, whose signature this is.
                        $($field: unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> c_int>($field)
                        },)*
                    }),
                    _ => Err(missing),
                }
            }
        }
    };
}

calls! {
    driver_get_version: c"cuDriverGetVersion"(*mut c_int);
    init: c"cuInit"(c_uint);
    device_get_count: c"cuDeviceGetCount"(*mut c_int);
    device_get: c"cuDeviceGet"(*mut c_int, c_int);
    device_get_name: c"cuDeviceGetName"(*mut c_char, c_int, c_int);
    device_get_attribute: c"cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
    device_total_mem: c"cuDeviceTotalMem_v2"(*mut usize, c_int);
    primary_retain: c"cuDevicePrimaryCtxRetain"(*mut *mut c_void, c_int);
    primary_release: c"cuDevicePrimaryCtxRelease_v2"(c_int);
    push: c"cuCtxPushCurrent_v2"(*mut c_void);
    pop: c"cuCtxPopCurrent_v2"(*mut *mut c_void);
    mem_get_info: c"cuMemGetInfo_v2"(*mut usize, *mut usize);
}
