//! How large memory is mapped.

/// Asks for large pages where there is much room: a page of 4 KiB costs a visit to the kernel when it is first written, and where
/// looks go all over the room, one at a page that the processor has no translation for costs more than the look.
#[cfg(target_os = "linux")]
pub(crate) fn advise_large_pages<T>(room: &mut Vec<T>) {
    const PAGE: usize = 4096;
    let bytes = room.capacity() * size_of::<T>();
    let start = room.as_mut_ptr().addr().next_multiple_of(PAGE);
    let length = (room.as_mut_ptr().addr() + bytes).saturating_sub(start) / PAGE * PAGE;
    if bytes >= 4 << 20 {
        let start = room.as_mut_ptr().with_addr(start).cast();
        // SAFETY: the pages are the vector's own, and the advice changes how they are mapped, not what is in them.
        // Where it is refused, pages stay small.
        unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn advise_large_pages<T>(_: &mut Vec<T>) {}
