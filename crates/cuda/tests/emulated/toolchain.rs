//! Compiles the kernels as host C++.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock},
};

use candlewick_cuda::kernels::SOURCES;

/// What watches the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Watch {
    /// AddressSanitizer and UndefinedBehaviorSanitizer.
    Sanitizers,
    /// The record of accesses.
    Shadow,
}

const FLAGS: &[&str] = &[
    "-std=c++17",
    "-g1",
    "-fno-omit-frame-pointer",
    // The kernels read floats as words, as CUDA C++ does.
    "-fno-strict-aliasing",
    // Sums must not depend on what the compiler fuses.
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
];

const MACHINE: [&str; 3] = ["block.cpp", "shadow.cpp", "program.cpp"];

/// Most of the work, and no memory but its own: nothing has to watch it.
const UNWATCHED: &str = "mma.cpp";

impl Watch {
    fn kernel_flags(self) -> &'static [&'static str] {
        match self {
            Self::Sanitizers => &["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
            // Only what the compiler inserts is wanted: shadow.cpp takes the place of ThreadSanitizer's library.
            Self::Shadow => &["-O1", "-DCANDLEWICK_SHADOW", "-fsanitize=thread"],
        }
    }

    fn machine_flags(self) -> &'static [&'static str] {
        match self {
            Self::Sanitizers => &["-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
            Self::Shadow => &["-O2", "-DCANDLEWICK_SHADOW"],
        }
    }

    fn link_flags(self) -> &'static [&'static str] {
        match self {
            Self::Sanitizers => self.kernel_flags(),
            Self::Shadow => &[],
        }
    }
}

/// A change to one source, to see that it is noticed.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Edit {
    pub(crate) file: &'static str,
    /// Which of the places where `from` stands, from 0.
    pub(crate) nth: usize,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
}

pub(crate) fn kernels_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// The C++ compiler: `CXX`, or the first of g++ and clang++ that runs.
fn compiler() -> &'static str {
    static COMPILER: OnceLock<String> = OnceLock::new();
    COMPILER.get_or_init(|| {
        let named = env::var("CXX").ok().filter(|name| !name.is_empty());
        let candidates = named.map_or(vec!["g++".into(), "clang++".into()], |name| vec![name]);
        let runs = |name: &&String| {
            Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
        };
        candidates.iter().find(runs).cloned().unwrap_or_else(|| {
            panic!(
                "the kernels are tested by compiling them as C++17, and {} does not run here: install g++ or \
                 clang++ (Debian: apt install g++), or name a compiler in CXX",
                candidates.join(" or ")
            )
        })
    })
}

/// The program with every kernel, compiled unless this very one is there already.
pub(crate) fn program(watch: Watch) -> PathBuf {
    static BUILDING: Mutex<()> = Mutex::new(());
    // A build that failed has said why; the next test tries again.
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let files: Vec<_> = SOURCES.iter().map(|source| source.file).collect();
    build(watch, &kernels_folder(), &files, "all")
}

/// The program with one source's kernels after an edit of the sources.
pub(crate) fn edited(watch: Watch, source: &'static str, edit: &Edit) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    (edit, source).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("edited-{:016x}", hasher.finish()));
    fs::create_dir_all(folder.join("emulation")).expect("a folder is made");
    for (name, text) in texts(&kernels_folder()) {
        let text = if name == edit.file { replaced(&text, edit) } else { text };
        fs::write(folder.join(name), text).expect("a source is written");
    }
    build(watch, &folder, &[source], "edited")
}

fn replaced(text: &str, edit: &Edit) -> String {
    let (at, found) = text
        .match_indices(edit.from)
        .nth(edit.nth)
        .unwrap_or_else(|| panic!("{} has no place {} with {:?}", edit.file, edit.nth, edit.from));
    format!("{}{}{}", &text[..at], edit.to, &text[at + found.len()..])
}

/// Names and contents of all sources, in order.
pub(crate) fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for prefix in ["", "emulation/"] {
        for entry in fs::read_dir(folder.join(prefix)).expect("the sources are here") {
            let path = entry.expect("the sources can be listed").path();
            if path.is_file() {
                let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
                texts.push((
                    format!("{prefix}{name}"),
                    fs::read_to_string(path).expect("a source can be read"),
                ));
            }
        }
    }
    texts.sort();
    texts
}

/// Objects are named by everything that they depend on, and so never stale.
fn build(watch: Watch, folder: &Path, files: &[&str], name: &str) -> PathBuf {
    let texts = texts(folder);
    let shared: Vec<_> = texts.iter().filter(|(name, _)| !name.ends_with(".cu")).collect();
    let objects = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulation");
    fs::create_dir_all(&objects).expect("a folder is made");
    let compile = |file: &str, flags: &[&str]| {
        let text = texts.iter().find(|(name, _)| name == file).unwrap_or_else(|| panic!("{file} is missing"));
        let mut hasher = DefaultHasher::new();
        (compiler(), FLAGS, flags, text, &shared).hash(&mut hasher);
        let object = objects.join(format!("{:016x}.o", hasher.finish()));
        if !object.exists() {
            let unfinished = object.with_extension(format!("{}.o", std::process::id()));
            run(Command::new(compiler())
                .args(FLAGS)
                .args(flags)
                .args(["-x", "c++", "-c"])
                .arg(folder.join(file))
                .arg("-o")
                .arg(&unfinished));
            fs::rename(unfinished, &object).expect("an object takes its name");
        }
        object
    };
    let mut parts: Vec<_> = files.iter().map(|file| compile(file, watch.kernel_flags())).collect();
    parts.extend(MACHINE.iter().map(|file| compile(&format!("emulation/{file}"), watch.machine_flags())));
    parts.push(compile(&format!("emulation/{UNWATCHED}"), &["-O3"]));
    let mut hasher = DefaultHasher::new();
    (name, &parts).hash(&mut hasher);
    let program = objects.join(format!("{name}-{:016x}", hasher.finish()));
    if !program.exists() {
        let unfinished = program.with_extension(std::process::id().to_string());
        run(Command::new(compiler()).args(watch.link_flags()).args(&parts).arg("-o").arg(&unfinished));
        fs::rename(unfinished, &program).expect("the program takes its name");
    }
    program
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\nThe sanitizers need their libraries: Debian has them with g++, Fedora in libasan and \
         libubsan",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
