//! Partial sums in the registers of x86 CPUs.

use std::arch::x86_64::*;

use super::accumulator::Accumulator;
use super::tiles::{score_pairs, score_tiles};
use crate::Matrix;
use crate::simd::Lanes;

/// A tile of 4 x 4 pairs takes 16 of the 32 registers, and its loads 8 more.
#[target_feature(enable = "avx512f")]
pub(super) fn score_block_avx512(users: Matrix, items: Matrix, out: &mut [f32]) {
    score_tiles::<Avx512, 4, 4>(users, items, out);
}

/// A tile of 2 x 2 pairs takes 8 of the 16 registers, and its loads 8 more.
#[target_feature(enable = "avx2")]
pub(super) fn score_block_avx2(users: Matrix, items: Matrix, out: &mut [f32]) {
    score_tiles::<Avx2, 2, 2>(users, items, out);
}

/// Eight independent pairs at a time hide the latency of the additions.
#[target_feature(enable = "avx512f")]
pub(super) fn score_pairs_avx512(users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
    score_pairs::<Avx512, 8>(users, items, pairs, out);
}

/// Four independent pairs at a time hide the latency of the additions: each sum takes two registers.
#[target_feature(enable = "avx2")]
pub(super) fn score_pairs_avx2(users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
    score_pairs::<Avx2, 4>(users, items, pairs, out);
}

/// The type is private to this module, and only functions that enable AVX-512F use it. That makes every intrinsic below
/// sound: they need AVX-512F, and `Lanes` holds the 16 values that a load reads, at any alignment.
#[derive(Clone, Copy)]
struct Avx512(__m512);

impl Accumulator for Avx512 {
    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        // SAFETY: see `Avx512`.
        Self(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see `Avx512`.
        Self(unsafe { _mm512_add_ps(self.0, _mm512_mul_ps(a.0, b.0)) })
    }

    #[inline(always)]
    fn add_lanes(self) -> f32 {
        // SAFETY: see `Avx512`.
        unsafe {
            let upper = _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0))));
            Avx2(_mm512_castps512_ps256(self.0), _mm512_castps512_ps256(upper)).add_lanes()
        }
    }
}

/// The type is private to this module, and only functions that enable AVX2 or AVX-512F use it. That makes every
/// intrinsic below sound: they need AVX, which both features include, and they read 8 of the 16 values of `Lanes` from
/// its start or its middle, at any alignment.
#[derive(Clone, Copy)]
struct Avx2(__m256, __m256);

impl Accumulator for Avx2 {
    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        // SAFETY: see `Avx2`.
        unsafe { Self(_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes[8..].as_ptr())) }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see `Avx2`.
        unsafe { Self(_mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0)), _mm256_add_ps(self.1, _mm256_mul_ps(a.1, b.1))) }
    }

    #[inline(always)]
    fn add_lanes(self) -> f32 {
        // SAFETY: see `Avx2`.
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}
