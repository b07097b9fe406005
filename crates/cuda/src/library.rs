//! Finds and opens CUDA's libraries at run time: nothing of CUDA is linked.
use std::{
    ffi::{CStr, CString, c_void},
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A library of CUDA that candlewick calls, in the order in which they are opened: the linear algebra of `Cublas` stands
/// on `CublasLt`, and finds the one that is open already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Library {
    /// The driver. It comes with the machine, never with a toolkit.
    Driver,
    /// Products with cached plans, for the step.
    CublasLt,
    /// Products, for candle's inference.
    Cublas,
    /// Random numbers: candle makes a generator with every device.
    Curand,
}

impl Library {
    /// All of them, in the order in which they are opened.
    pub const ALL: [Self; 4] = [Self::Driver, Self::CublasLt, Self::Cublas, Self::Curand];

    /// Its file name without the version.
    fn stem(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so",
            Self::CublasLt => "libcublasLt.so",
            Self::Cublas => "libcublas.so",
            Self::Curand => "libcurand.so",
        }
    }

    /// The name that its file has, its interface's version included.
    pub fn file(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so.1",
            Self::CublasLt => "libcublasLt.so.13",
            Self::Cublas => "libcublas.so.13",
            Self::Curand => "libcurand.so.10",
        }
    }

    /// The package of PyPI that brings it; none for the driver.
    pub fn wheel(self) -> Option<&'static str> {
        match self {
            Self::Driver => None,
            Self::CublasLt | Self::Cublas => Some("nvidia-cublas"),
            Self::Curand => Some("nvidia-curand"),
        }
    }
}

/// A library that is open, and stays so while the process lives.
#[derive(Debug)]
pub struct Open {
    handle: *mut c_void,
    /// Where it was found; the bare name where the system's loader found it.
    pub path: PathBuf,
}

// SAFETY: the handle is only given to `dlsym`, which any thread may call.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

impl Open {
    /// The address of a function, where the library has it.
    pub fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is of a library that is never closed, the name a C string.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

/// Why a library is not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotOpen {
    /// Which one.
    pub library: Library,
    /// Files that are there and do not open, each with what the loader said.
    pub broken: Vec<String>,
    /// Files of the same library with another version.
    pub other_versions: Vec<PathBuf>,
    /// Where it was looked for, in order.
    pub looked_in: Vec<String>,
}

/// Where to look, best first.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `CUDA_HOME` and `CUDA_PATH`.
    pub toolkits: Vec<PathBuf>,
    /// Virtual environments with `nvidia-*` wheels.
    pub environments: Vec<PathBuf>,
    /// Folders where systems have it, looked at after what the loader finds by itself.
    pub system: Vec<PathBuf>,
}

/// Where toolkits and drivers put their libraries when nobody says otherwise, containers and WSL included.
const SYSTEM: [&str; 9] = [
    "/usr/local/cuda/lib64",
    "/usr/local/cuda-13/lib64",
    "/usr/local/cuda-13.0/lib64",
    "/opt/cuda/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
];

impl Places {
    /// As the environment of this process says; `environments` are virtual environments to look into.
    pub fn of_this_process(environments: Vec<PathBuf>) -> Self {
        let toolkits = ["CUDA_HOME", "CUDA_PATH"]
            .iter()
            .filter_map(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
            .collect();
        Self { toolkits, environments, system: SYSTEM.iter().map(PathBuf::from).collect() }
    }

    /// Folders that may hold a library before the system's loader is asked.
    fn first(&self, library: Library) -> Vec<PathBuf> {
        if library == Library::Driver {
            // A toolkit has a file of that name too: a stub to link against, which knows no device.
            return Vec::new();
        }
        let arch = if cfg!(target_arch = "aarch64") { "sbsa-linux" } else { "x86_64-linux" };
        let of_toolkit = |home: &PathBuf| {
            ["lib64".into(), "lib".into(), format!("targets/{arch}/lib")].map(|name| home.join(name))
        };
        let mut folders: Vec<PathBuf> = self.toolkits.iter().flat_map(of_toolkit).collect();
        folders.extend(self.environments.iter().flat_map(|home| wheels(home)));
        folders
    }
}

/// The `lib` folders of `nvidia-*` wheels in a virtual environment: `nvidia/cu13/lib`, in older ones `nvidia/cublas/lib`.
fn wheels(environment: &Path) -> Vec<PathBuf> {
    let pythons = entries(&environment.join("lib"))
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python")));
    pythons
        .flat_map(|python| entries(&python.join("site-packages/nvidia")))
        .map(|package| package.join("lib"))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// What a folder holds, sorted; nothing where it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(read) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// Looks for a library and opens the first that opens.
pub fn search(library: Library, places: &Places) -> Result<Open, NotOpen> {
    let mut failed =
        NotOpen { library, broken: Vec::new(), other_versions: Vec::new(), looked_in: Vec::new() };
    for folder in places.first(library) {
        if let Some(open) = try_folder(library, &folder, &mut failed) {
            return Ok(open);
        }
    }
    // By its bare name the loader looks through LD_LIBRARY_PATH and its own cache.
    match open(Path::new(library.file())) {
        Ok(open) => return Ok(open),
        // That it is nowhere is told once, below; anything else is a file that is there and does not open.
        Err(said) if said.contains("cannot open shared object file: No such file") => {
            failed.looked_in.extend(["LD_LIBRARY_PATH".into(), "ldconfig's folders".into()]);
        }
        Err(said) => failed.broken.push(said),
    }
    for folder in &places.system {
        if let Some(open) = try_folder(library, folder, &mut failed) {
            return Ok(open);
        }
    }
    Err(failed)
}

fn try_folder(library: Library, folder: &Path, failed: &mut NotOpen) -> Option<Open> {
    let path = folder.join(library.file());
    if path.is_file() {
        match open(&path) {
            Ok(open) => return Some(open),
            Err(said) => failed.broken.push(said),
        }
    } else if folder.is_dir() {
        failed.looked_in.push(folder.display().to_string());
        let other = |path: &PathBuf| {
            path.file_name().is_some_and(|name| {
                name.to_string_lossy().strip_prefix(library.stem()).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        if library != Library::Driver {
            failed.other_versions.extend(entries(folder).into_iter().filter(other));
        }
    }
    None
}

fn open(path: &Path) -> Result<Open, String> {
    let name = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: a C string; what runs is the library's own initialisation. LAZY, as its own are bound: cuBLAS has very many.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: after a failed `dlopen` of this thread, `dlerror` gives a C string of this thread, or null.
        let said = unsafe {
            let said = libc::dlerror();
            if said.is_null() { None } else { Some(CStr::from_ptr(said).to_string_lossy().into_owned()) }
        };
        return Err(said.unwrap_or_else(|| format!("{} does not open", path.display())));
    }
    Ok(Open { handle, path: path.to_owned() })
}

static ENVIRONMENTS: OnceLock<Vec<PathBuf>> = OnceLock::new();

/// Says which virtual environments to look into, best first. Only what comes before the first search counts.
pub fn look_in_environments(environments: Vec<PathBuf>) {
    let _ = ENVIRONMENTS.set(environments);
}

/// A library of this process, searched for at the first call and never again.
pub fn library(library: Library) -> Result<&'static Open, &'static NotOpen> {
    static FOUND: [OnceLock<Result<Open, NotOpen>>; Library::ALL.len()] =
        [const { OnceLock::new() }; Library::ALL.len()];
    if library == Library::Cublas {
        // The one that cuBLAS stands on has to come from the same search.
        let _ = self::library(Library::CublasLt);
    }
    let places = || Places::of_this_process(ENVIRONMENTS.get().cloned().unwrap_or_default());
    FOUND[library as usize].get_or_init(|| search(library, &places())).as_ref()
}
