//! Products of 16 bits in the registers of x86 CPUs without VNNI.

use std::arch::x86_64::*;

use super::registers::{Registers, score_sixteen, users_once};
use crate::filter::layout::{Integers, TILE};
use crate::filter::users::UserTile;

#[target_feature(enable = "avx2")]
pub(super) fn score_avx2<'a>(tile: &UserTile, items: &Integers, rows: &mut impl Iterator<Item = &'a mut [f32]>) {
    score_sixteen::<Avx2>(tile, items, rows);
}

/// The type is private to this module, and only the function that enables AVX2 uses it. That makes its intrinsics
/// sound: they read or write the 8 values at the start of a slice, at any alignment.
struct Avx2;

impl Registers for Avx2 {
    const LANES: usize = 8;
    type User = u32;
    type Pairs = __m256i;
    type Sums = __m256i;

    #[inline(always)]
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
        users_once(tile, first)
    }

    #[inline(always)]
    fn zero() -> __m256i {
        // SAFETY: see `Avx2`.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn splat(pair: &u32) -> __m256i {
        // SAFETY: see `Avx2`.
        unsafe { _mm256_set1_epi32(pair.cast_signed()) }
    }

    #[inline(always)]
    fn load(pairs: &[u32]) -> __m256i {
        // SAFETY: see `Avx2`.
        unsafe { _mm256_loadu_si256(pairs[..8].as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_products(sums: __m256i, users: __m256i, items: __m256i) -> __m256i {
        // SAFETY: see `Avx2`.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(users, items)) }
    }

    #[inline(always)]
    fn write_scores(sums: __m256i, scales: &[f32], out: &mut [f32]) {
        // SAFETY: see `Avx2`.
        unsafe {
            let scores = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(scales[..8].as_ptr()));
            _mm256_storeu_ps(out[..8].as_mut_ptr(), scores);
        }
    }
}

/// Every 64-bit x86 CPU has SSE2, so its intrinsics are sound. They read or write the 4 values of an array, or the 4
/// values at the start of a slice, at any alignment.
pub(super) struct Sse2;

impl Registers for Sse2 {
    const LANES: usize = 4;
    type User = [u32; 4];
    type Pairs = __m128i;
    type Sums = __m128i;

    #[inline(always)]
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[[u32; 4]; U]> {
        tile.four_times[first / (TILE / 2)].iter().map(|group| group.first_chunk().expect("half a tile"))
    }

    #[inline(always)]
    fn zero() -> __m128i {
        // SAFETY: see `Sse2`.
        unsafe { _mm_setzero_si128() }
    }

    #[inline(always)]
    fn splat(pairs: &[u32; 4]) -> __m128i {
        // SAFETY: see `Sse2`.
        unsafe { _mm_loadu_si128(pairs.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load(pairs: &[u32]) -> __m128i {
        // SAFETY: see `Sse2`.
        unsafe { _mm_loadu_si128(pairs[..4].as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_products(sums: __m128i, users: __m128i, items: __m128i) -> __m128i {
        // SAFETY: see `Sse2`.
        unsafe { _mm_add_epi32(sums, _mm_madd_epi16(users, items)) }
    }

    #[inline(always)]
    fn write_scores(sums: __m128i, scales: &[f32], out: &mut [f32]) {
        // SAFETY: see `Sse2`.
        unsafe {
            let scores = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_loadu_ps(scales[..4].as_ptr()));
            _mm_storeu_ps(out[..4].as_mut_ptr(), scores);
        }
    }
}
