//! Asking for memory before it is needed: tables and texts are larger than the processor's caches.

/// Has the processor fetch the line that `place` lies in, where there is an instruction for it.
#[inline(always)]
pub(crate) fn prefetch<T>(place: &T) {
    prefetch_address((&raw const *place).cast());
}

/// Has the processor fetch the line of an address, which need not be one that may be read.
#[inline(always)]
pub(crate) fn prefetch_address(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching reads nothing, whatever the address; SSE is part of the architecture.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: prefetching reads nothing, whatever the address, and changes no register.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}
