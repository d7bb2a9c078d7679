//! Items in 8 bits, made of items in 16.

use super::items::Panel;
use super::layout::{Integers, Line, PANEL};
use crate::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Instructions;

/// The items of a panel in 8 bits. They are made of the 16 bits whenever a block of items is ranked, so the catalog is
/// not copied.
#[derive(Clone, Default)]
pub struct EightBits {
    groups: Vec<[Line; 2]>,
    scales: [f32; PANEL],
    /// What each item's product must be reduced by.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only products of 8 bits need offsets"))]
    pub(super) offsets: [i32; PANEL],
}

impl EightBits {
    pub(super) fn integers(&self) -> Integers<'_> {
        Integers { groups: &self.groups, scales: self.scales }
    }

    /// Takes the upper 8 bits of a panel, in place of what was here.
    ///
    /// # Panics
    /// When the kernel has no products of 8 bits, or the panel belongs to another kernel.
    pub fn take(&mut self, panel: &Panel, kernel: Kernel) {
        let sixteen = panel.integers().groups;
        self.scales = panel.scales_of_eight();
        self.groups.resize(sixteen.len().div_ceil(2), [Line::default(); 2]);
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe {
                x86::take_eight(panel, &mut self.groups, &mut self.offsets);
            },
            _ => panic!("{} has no products of 8 bits", kernel.name()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, PANEL, Panel};

    /// Makes one group of four integers out of two groups of two.
    ///
    /// `offsets` become 128 times the sum of each item's integers: users have 128 added to each integer, so that their
    /// products are too large by that much.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn take_eight(panel: &Panel, groups: &mut [[Line; 2]], offsets: &mut [i32; PANEL]) {
        // The first and third of a lane's four bytes go to the lower half of the lane, or to the upper half.
        let to_lower = _mm512_set4_epi32(
            0x8080_0e0c_u32.cast_signed(),
            0x8080_0a08_u32.cast_signed(),
            0x8080_0604_u32.cast_signed(),
            0x8080_0200_u32.cast_signed(),
        );
        let to_upper = _mm512_set4_epi32(0x0e0c_8080, 0x0a08_8080, 0x0604_8080, 0x0200_8080);
        // Each item's factor, for both its integers in a lane.
        let factors: [u32; PANEL] = panel.factors_of_eight().map(|factor| u32::from(factor.cast_unsigned()) * 0x1_0001);
        // SAFETY: a chunk holds the 16 values that are read, at any alignment.
        let factors = [0, 16].map(|start| unsafe { _mm512_loadu_si512(factors[start..][..16].as_ptr().cast()) });
        let ones = _mm512_set1_epi8(1);
        let nothing = [Line::default(); 2];
        let mut sums = [_mm512_setzero_si512(); 2];
        for (group, pairs) in groups.iter_mut().zip(panel.integers().groups.chunks(2)) {
            let second = pairs.get(1).unwrap_or(&nothing);
            for side in 0..2 {
                let in_eight = |line: &Line| _mm512_mulhrs_epi16(line.load(), factors[side]);
                let bytes = _mm512_or_si512(
                    _mm512_shuffle_epi8(in_eight(&pairs[0][side]), to_lower),
                    _mm512_shuffle_epi8(in_eight(&second[side]), to_upper),
                );
                sums[side] = _mm512_dpbusd_epi32(sums[side], ones, bytes);
                // SAFETY: a line holds the 64 bytes that are written, at their alignment.
                unsafe { _mm512_store_si512(std::ptr::from_mut(&mut group[side]).cast(), bytes) };
            }
        }
        for (offsets, sum) in offsets.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: each chunk holds the 16 values that are written, at any alignment.
            unsafe { _mm512_storeu_si512(offsets.as_mut_ptr().cast(), _mm512_slli_epi32::<7>(sum)) };
        }
    }
}
