use std::cell::UnsafeCell;

/// The memory of the ring: a power of two of slots, addressed by indices that count on without wrapping.
pub(super) struct Slots {
    tokens: Box<[UnsafeCell<u32>]>,
    mask: usize,
    /// Under loom every slot has a shadow cell whose accesses loom orders: a race on a token is a race on its shadow.
    #[cfg(loom)]
    shadows: Vec<loom::cell::UnsafeCell<()>>,
}

// SAFETY: all access goes through `write` and `slices`, whose contracts give every slot to one side at a time.
unsafe impl Sync for Slots {}

impl Slots {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity.is_power_of_two());
        Self {
            tokens: (0..capacity).map(|_| UnsafeCell::new(0)).collect(),
            mask: capacity - 1,
            #[cfg(loom)]
            shadows: (0..capacity).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.mask + 1
    }

    /// Copies `tokens` into the slots from `index` on.
    ///
    /// # Safety
    /// No other thread may access the slots `[index, index + tokens.len())`, and they are at most the capacity.
    pub(super) unsafe fn write(&self, index: usize, tokens: &[u32]) {
        debug_assert!(tokens.len() <= self.capacity());
        #[cfg(loom)]
        for i in 0..tokens.len() {
            self.shadows[(index + i) & self.mask].with_mut(|_| ());
        }
        let (first, second) = self.spans(index, tokens.len());
        // SAFETY: both spans lie inside the allocation (masked index, length cut at its end), UnsafeCell<u32> has
        // u32's layout, the caller owns the slots, and `tokens` is another allocation.
        unsafe {
            std::ptr::copy_nonoverlapping(tokens.as_ptr(), self.slot(first.0), first.1);
            std::ptr::copy_nonoverlapping(tokens.as_ptr().add(first.1), self.slot(second.0), second.1);
        }
    }

    /// The slots `[index, index + count)`.
    ///
    /// # Safety
    /// No other thread may write these slots while the slices live, and they are at most the capacity.
    pub(super) unsafe fn slices(&self, index: usize, count: usize) -> (&[u32], &[u32]) {
        self.check_readable(index, count);
        let (first, second) = self.spans(index, count);
        // SAFETY: both spans lie inside the allocation and are initialised; the caller keeps writers away.
        unsafe {
            (
                std::slice::from_raw_parts(self.slot(first.0), first.1),
                std::slice::from_raw_parts(self.slot(second.0), second.1),
            )
        }
    }

    /// Under loom: fails if another thread may be writing one of these slots.
    pub(super) fn check_readable(&self, index: usize, count: usize) {
        #[cfg(loom)]
        for i in 0..count {
            self.shadows[(index + i) & self.mask].with(|_| ());
        }
        #[cfg(not(loom))]
        let _ = (index, count);
    }

    /// Where slot `at` (below the capacity) lies.
    fn slot(&self, at: usize) -> *mut u32 {
        // `raw_get` of a pointer into the whole slice, so that it may reach the slots after this one.
        UnsafeCell::raw_get(self.tokens.as_ptr().wrapping_add(at))
    }

    /// Offset and length of the part before the wrap and of the part after it.
    fn spans(&self, index: usize, count: usize) -> ((usize, usize), (usize, usize)) {
        let at = index & self.mask;
        let first = count.min(self.capacity() - at);
        ((at, first), (0, count - first))
    }
}
