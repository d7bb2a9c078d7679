//! The sizes of the integers whose products approximate scores.

#[cfg(target_arch = "x86_64")]
use super::tiles::MAX_DIM;
use crate::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Instructions;

/// The size of the integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 8 bits: twice as fast as 16 bits, with an error about thirty times larger.
    Eight,
    /// 16 bits.
    Sixteen,
}

impl Kernel {
    /// The sizes of integers whose products approximate scores of `dim` dimensions, the fastest first. There is none
    /// for too many dimensions.
    pub fn precisions(self, dim: usize) -> &'static [Precision] {
        match (self.instructions(), dim) {
            // The largest product is 255 x 128, and the sum of `dim` of them must fit in 32 bits.
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Vnni, ..=65_536) => &[Precision::Eight, Precision::Sixteen],
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx, _) if dim > MAX_DIM => &[],
            _ => &[Precision::Sixteen],
        }
    }
}
