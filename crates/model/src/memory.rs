//! Memory for what is large: weights, a step's buffers.

use std::collections::TryReserveError;

/// Size of a large page. Where the processor's are larger, the system rounds by itself.
#[cfg(target_os = "linux")]
const LARGE_PAGE: usize = 2 << 20;

/// A vector of `len` times `zero`, written once, in large pages where the system gives them: rows of a matrix lie pages
/// apart, and more small pages than the processor remembers the places of are read in turn.
///
/// # Errors
/// When there is no memory for it.
pub fn zeroed<T: Copy>(len: usize, zero: T) -> Result<Vec<T>, TryReserveError> {
    let mut values: Vec<T> = Vec::new();
    values.try_reserve_exact(len)?;
    advise_large_pages(values.as_mut_ptr().cast(), len * size_of::<T>());
    values.resize(len, zero);
    Ok(values)
}

/// Only for whole large pages inside, so that no more memory is taken than asked for.
#[cfg(target_os = "linux")]
fn advise_large_pages(start: *mut u8, bytes: usize) {
    let skipped = start.align_offset(LARGE_PAGE);
    let len = bytes.saturating_sub(skipped) / LARGE_PAGE * LARGE_PAGE;
    if len > 0 {
        // SAFETY: the range lies inside an allocation of ours, and advice changes no value in it. Where the system knows
        // no large pages it says so, and nothing has changed.
        unsafe { libc::madvise(start.add(skipped).cast(), len, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise_large_pages(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_written_and_asked_for_in_large_pages() {
        let values = zeroed(3 << 20, 0.0f32).unwrap();
        assert!(values.len() == 3 << 20 && values.iter().all(|&value| value == 0.0));
        assert!(zeroed(usize::MAX / 8, 0u32).is_err());
        #[cfg(target_os = "linux")]
        if std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            let middle = values[values.len() / 2..].as_ptr() as usize;
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut inside = false;
            let mut flags = "";
            for line in maps.lines() {
                let range = line.split(' ').next().and_then(|range| range.split_once('-'));
                let bound = |text: &str| usize::from_str_radix(text, 16);
                if let Some((Ok(first), Ok(end))) = range.map(|(first, end)| (bound(first), bound(end))) {
                    inside = (first..end).contains(&middle);
                } else if let Some(rest) = line.strip_prefix("VmFlags:").filter(|_| inside) {
                    flags = rest;
                }
            }
            assert!(flags.split(' ').any(|flag| flag == "hg"), "flags of the mapping: {flags}");
        }
    }
}
