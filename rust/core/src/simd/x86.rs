//! Vectors in the registers of x86 CPUs.

use std::arch::x86_64::*;

use super::vector::{LANES, Lanes, Vector, Work};

#[target_feature(enable = "avx512f")]
pub(super) fn avx512(work: impl Work) {
    work.run::<Avx512>();
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn avx2(work: impl Work) {
    work.run::<Avx2>();
}

/// The type is private to this module, and only work inside [`avx512`] gets it. That makes every intrinsic below sound:
/// they need AVX-512F, and read or write the 16 numbers of their argument, at any alignment.
#[derive(Clone, Copy)]
struct Avx512(__m512);

impl Vector for Avx512 {
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see `Avx512`.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        // SAFETY: see `Avx512`.
        Self(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
    }

    #[inline(always)]
    fn widen(lanes: &[u16; LANES]) -> Self {
        // SAFETY: see `Avx512`.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(lanes.as_ptr().cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }

    #[inline(always)]
    fn store(self, lanes: &mut Lanes) {
        // SAFETY: see `Avx512`.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see `Avx512`.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
}

/// The type is private to this module, and only work inside [`avx2`] gets it. That makes every intrinsic below sound:
/// they need AVX2 and FMA, and read or write 8 of the 16 numbers of their argument from its start or its middle.
#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

impl Vector for Avx2 {
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see `Avx2`.
        let half = unsafe { _mm256_set1_ps(value) };
        Self(half, half)
    }

    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        // SAFETY: see `Avx2`.
        unsafe { Self(_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes[8..].as_ptr())) }
    }

    #[inline(always)]
    fn widen(lanes: &[u16; LANES]) -> Self {
        // SAFETY: see `Avx2`.
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(lanes.as_ptr().cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(lanes[8..].as_ptr().cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    fn store(self, lanes: &mut Lanes) {
        // SAFETY: see `Avx2`.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), self.0);
            _mm256_storeu_ps(lanes[8..].as_mut_ptr(), self.1);
        }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see `Avx2`.
        unsafe { Self(_mm256_fmadd_ps(a.0, b.0, self.0), _mm256_fmadd_ps(a.1, b.1, self.1)) }
    }
}
