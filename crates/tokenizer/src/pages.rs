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

/// Room for so many zeros from the returned place on, which is on a border of `align` bytes; many lie in large pages. Each of
/// these is written at once: where a page is read first, the kernel maps one of zeros there, and has to take that from every
/// processor of the process when the page is written.
pub(crate) fn zeros(count: usize, align: usize) -> (Vec<u64>, usize) {
    const LARGE: usize = 2 << 20;
    const NUMBER: usize = size_of::<u64>();
    let align = if count * NUMBER >= 2 * LARGE { LARGE } else { align };
    let mut room = vec![0; count + align / NUMBER];
    advise_large_pages(&mut room);
    let start = room.as_ptr().align_offset(align);
    for number in room[start..start + count].iter_mut().step_by(LARGE / NUMBER) {
        // The compiler knows that it is zero already, and would leave it out.
        *std::hint::black_box(number) = 0;
    }
    (room, start)
}
