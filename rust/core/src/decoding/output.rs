//! A slice of which parallel tasks write separate places.

use std::marker::PhantomData;

use crate::simd::{LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    values: *mut f32,
    len: usize,
    of_slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever calls `Output::write` guarantees that no other task reads or writes the same places.
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    pub(super) fn new(values: &'a mut [f32]) -> Self {
        Self { values: values.as_mut_ptr(), len: values.len(), of_slice: PhantomData }
    }

    /// Writes numbers from the place `start` on.
    ///
    /// # Safety
    /// No other task writes these places.
    ///
    /// # Panics
    /// When they are not in the slice.
    #[inline(always)]
    pub(super) unsafe fn write(self, start: usize, numbers: &[f32]) {
        assert!(start <= self.len && numbers.len() <= self.len - start);
        // SAFETY: the places are in the slice, which nothing else uses while `Output` borrows it, but for other places.
        unsafe { std::ptr::copy_nonoverlapping(numbers.as_ptr(), self.values.add(start), numbers.len()) }
    }

    /// [`Self::write`] for two whole vectors, without a call of `memcpy`.
    ///
    /// # Safety
    /// Like that of [`Self::write`].
    ///
    /// # Panics
    /// Like [`Self::write`].
    #[inline(always)]
    pub(super) unsafe fn write_all(self, start: usize, numbers: &[Lanes; 2]) {
        assert!(start <= self.len && 2 * LANES <= self.len - start);
        // SAFETY: as in `write`.
        unsafe { self.values.add(start).cast::<[Lanes; 2]>().write_unaligned(*numbers) }
    }
}
