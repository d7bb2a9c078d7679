//! Sixteen float32 numbers at a time, in whatever registers a CPU has for them.
//!
//! Work that is generic over [`Vector`] is compiled once for each set of instructions; [`Kernel::compute`] runs the one
//! of the kernel. Unlike [`crate::exact`], a product and its sum are rounded together where the CPU can do that, so
//! results may differ in their last bits between CPUs, but not between numbers of threads or positions in a batch.

#[cfg(target_arch = "aarch64")]
mod neon;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use vector::{LANES, Lanes, Vector, Work, narrowed};

use crate::Kernel;
use crate::cpu::Instructions;

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

#[cfg(test)]
mod tests {
    use super::vector::widened;
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
