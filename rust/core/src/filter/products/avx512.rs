//! Products by the VNNI instructions of AVX-512: all sums of a tile of users stay in registers.

use std::arch::x86_64::*;

use crate::filter::layout::{Integers, PANEL, TILE};

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn score<'a, const EIGHT: bool>(
    users: &[[u32; TILE]],
    num_users: usize,
    items: &Integers,
    offsets: &[i32; PANEL],
    rows: &mut impl Iterator<Item = &'a mut [f32]>,
) {
    match num_users {
        1 => score_users::<1, EIGHT>(users, items, offsets, rows),
        2 => score_users::<2, EIGHT>(users, items, offsets, rows),
        3..=4 => score_users::<4, EIGHT>(users, items, offsets, rows),
        5..=8 => score_users::<8, EIGHT>(users, items, offsets, rows),
        _ => score_users::<TILE, EIGHT>(users, items, offsets, rows),
    }
}

/// The scores of the first `U` users of the tile. All their sums stay in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn score_users<'a, const U: usize, const EIGHT: bool>(
    users: &[[u32; TILE]],
    items: &Integers,
    offsets: &[i32; PANEL],
    rows: &mut impl Iterator<Item = &'a mut [f32]>,
) {
    let mut sums = [[_mm512_setzero_si512(); 2]; U];
    for (users, lines) in users.iter().zip(items.groups) {
        let items = [lines[0].load(), lines[1].load()];
        for (user, sums) in users.iter().zip(&mut sums) {
            let user = _mm512_set1_epi32(user.cast_signed());
            for (sum, item) in sums.iter_mut().zip(items) {
                // The first factor of a product of 8 bits is read as unsigned.
                *sum =
                    if EIGHT { _mm512_dpbusd_epi32(*sum, user, item) } else { _mm512_dpwssd_epi32(*sum, user, item) };
            }
        }
    }
    let (scales, offsets) = (items.scales.as_chunks::<16>().0, offsets.as_chunks::<16>().0);
    for (sums, row) in sums.into_iter().zip(rows) {
        let (halves, _) = row.as_chunks_mut::<16>();
        for (((half, sum), scale), offset) in halves.iter_mut().zip(sums).zip(scales).zip(offsets) {
            // SAFETY: every chunk holds the 16 values that are read or written, at any alignment.
            unsafe {
                let whole = _mm512_sub_epi32(sum, _mm512_loadu_si512(offset.as_ptr().cast()));
                let score = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(scale.as_ptr()));
                _mm512_storeu_ps(half.as_mut_ptr(), score);
            }
        }
    }
}
