//! Sixteen float32 numbers at a time, in whatever registers a CPU has for them.
//!
//! Work that is generic over [`Vector`] is compiled once for each set of instructions; [`Kernel::compute`] runs the one
//! of the kernel. Unlike [`crate::exact`], a product and its sum are rounded together where the CPU can do that, so
//! results may differ in their last bits between CPUs, but not between numbers of threads or positions in a batch.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::Kernel;
use crate::cpu::Instructions;

/// Numbers in a vector.
pub(crate) const LANES: usize = 16;

/// Sixteen numbers in memory.
pub(crate) type Lanes = [f32; LANES];

pub(crate) trait Vector: Copy {
    /// Registers of the CPU that such vectors can be kept in at the same time.
    const REGISTERS: usize;
    fn splat(value: f32) -> Self;
    fn load(lanes: &Lanes) -> Self;
    /// Loads numbers in bfloat16, which are the upper halves of float32 numbers.
    fn widen(lanes: &[u16; LANES]) -> Self;
    fn store(self, lanes: &mut Lanes);
    /// `self + a * b`.
    fn add_product(self, a: Self, b: Self) -> Self;
}

/// Something to compute with vectors.
pub(crate) trait Work {
    /// Every function that this calls with `V` is `#[inline(always)]`, so that it is compiled for the CPU of `V`.
    /// A closure that is passed to a function of the standard library is not.
    fn run<V: Vector>(self);
}

impl Kernel {
    /// Runs work with the widest vectors of the kernel.
    pub(crate) fn compute(self, work: impl Work) {
        match self.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features of its instructions, and AVX-512F includes FMA.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Vnni | Instructions::Avx512 => unsafe { x86::avx512(work) },
            // SAFETY: as above, and FMA was just found.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 if is_x86_feature_detected!("fma") => unsafe { x86::avx2(work) },
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => work.run::<Lanes>(),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => work.run::<neon::Neon>(),
            Instructions::Portable => work.run::<Lanes>(),
        }
    }
}

impl Vector for Lanes {
    const REGISTERS: usize = 4;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        *lanes
    }

    #[inline(always)]
    fn widen(lanes: &[u16; LANES]) -> Self {
        lanes.map(widened)
    }

    #[inline(always)]
    fn store(self, lanes: &mut Lanes) {
        *lanes = self;
    }

    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for lane in 0..LANES {
            self[lane] += a[lane] * b[lane];
        }
        self
    }
}

/// The float32 number of a bfloat16 number.
#[inline(always)]
pub(crate) fn widened(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16 number, the even one of two that are equally near. NaN stays NaN.
#[inline(always)]
pub(crate) fn narrowed(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Check;

    impl Work for Check {
        fn run<V: Vector>(self) {
            let a: Lanes = std::array::from_fn(|lane| lane as f32 - 7.5);
            let b: Lanes = std::array::from_fn(|lane| 1.0 / (lane as f32 + 1.0));
            let mut out = [0.0; LANES];
            V::splat(2.0).add_product(V::load(&a), V::load(&b)).store(&mut out);
            for lane in 0..LANES {
                assert!((out[lane] - (2.0 + a[lane] * b[lane])).abs() < 1e-6);
            }
            V::widen(&a.map(narrowed)).store(&mut out);
            assert_eq!(out, a, "these numbers need few bits");
        }
    }

    #[test]
    fn every_kernel_computes_the_same() {
        Kernel::supported().into_iter().for_each(|kernel| kernel.compute(Check));
    }

    #[test]
    fn narrowing_rounds_to_the_nearest_even() {
        let step = 2.0_f32.powi(-7);
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (1.0 + 0.51 * step, 1.0 + step),
            (-1.0 - 0.49 * step, -1.0),
            (f32::INFINITY, f32::INFINITY),
            (f32::MAX, f32::INFINITY),
            (-0.0, -0.0),
        ] {
            assert_eq!(widened(narrowed(value)).to_bits(), expected.to_bits(), "{value}");
        }
        assert!(widened(narrowed(f32::NAN)).is_nan() && widened(narrowed(f32::from_bits(0x7f80_0001))).is_nan());
    }
}
