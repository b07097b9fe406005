//! The functions of CUDA that this program calls, as `symbols.txt` lists them.
use crate::library::Library;

const LIST: &str = include_str!("../symbols.txt");

/// The functions that a library has to have.
pub(crate) fn wanted(library: Library) -> impl Iterator<Item = &'static str> {
    let word = match library {
        Library::Driver => "driver",
        Library::CublasLt => "cublasLt",
        Library::Cublas => "cublas",
        Library::Curand => "curand",
    };
    LIST.lines().filter_map(move |line| line.strip_prefix(word)?.strip_prefix(' '))
}
