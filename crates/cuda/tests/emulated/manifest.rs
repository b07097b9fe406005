//! The list of kernels against the sources.

use candlewick_cuda::kernels::SOURCES;

use crate::toolchain;

#[test]
fn the_list_names_every_source_and_kernel() {
    let texts = toolchain::texts(&toolchain::kernels_folder());
    let mut found: Vec<(String, Vec<String>)> = texts
        .into_iter()
        .filter(|(name, _)| name.ends_with(".cu"))
        .map(|(name, text)| {
            let (_, list) =
                text.split_once("\nEMULATED(").expect("a source ends with the list of its kernels");
            let (names, _) = list.split_once(')').expect("the list is closed");
            (name, names.split(',').map(|name| name.trim().to_owned()).collect())
        })
        .collect();
    let mut listed: Vec<(String, Vec<String>)> = SOURCES
        .iter()
        .map(|source| (source.file.to_owned(), source.kernels.iter().map(|&name| name.to_owned()).collect()))
        .collect();
    found.sort();
    listed.sort();
    assert_eq!(listed, found);
}
