//! Comparison of approximate scores with thresholds.

use super::bound::Thresholds;
use crate::Kernel;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Instructions;

/// Counts the scores that are surely above. Appends to `doubtful` the places of the scores that are neither surely
/// above nor surely below. `norms` holds the norm of each item.
pub fn sift(kernel: Kernel, scores: &[f32], norms: &[f32], thresholds: Thresholds, doubtful: &mut Vec<u32>) -> u64 {
    assert_eq!(scores.len(), norms.len());
    match kernel.instructions() {
        // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
        #[cfg(target_arch = "x86_64")]
        Instructions::Amx | Instructions::Avx512Vnni | Instructions::Avx512 => unsafe {
            x86::sift_avx512(scores, norms, thresholds, doubtful)
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { x86::sift_avx2(scores, norms, thresholds, doubtful) },
        _ => sift_portable(scores, norms, thresholds, doubtful),
    }
}

/// Sixteen scores at a time, lane by lane: compilers turn such loops into vector instructions.
#[inline(always)]
fn sift_portable(scores: &[f32], norms: &[f32], thresholds: Thresholds, doubtful: &mut Vec<u32>) -> u64 {
    let ((chunks, rest), (norm_chunks, norm_rest)) = (scores.as_chunks::<16>(), norms.as_chunks::<16>());
    let mut above_by_lane = [0_u32; 16];
    for (number, (scores, norms)) in chunks.iter().zip(norm_chunks).enumerate() {
        let mut open_by_lane = [0_u32; 16];
        for lane in 0..16 {
            let [above, open] = compare(scores[lane], norms[lane], thresholds);
            above_by_lane[lane] += above;
            open_by_lane[lane] = open << lane;
        }
        push_places(open_by_lane.into_iter().fold(0, |all, one| all | one), 16 * number as u32, doubtful);
    }
    let mut num_above = above_by_lane.into_iter().map(u64::from).sum();
    for (at, (score, norm)) in rest.iter().zip(norm_rest).enumerate() {
        let [above, open] = compare(*score, *norm, thresholds);
        num_above += u64::from(above);
        push_places(open, (16 * chunks.len() + at) as u32, doubtful);
    }
    num_above
}

/// Whether a score is surely above, and whether it is in doubt: 0 or 1.
#[inline(always)]
fn compare(score: f32, norm: f32, Thresholds { low, high, slope }: Thresholds) -> [u32; 2] {
    let error = slope * norm;
    let is_above = u32::from(score > high + error);
    let is_below = u32::from(score < low - error); // 0 for NaN, which is in doubt
    [is_above, (is_above | is_below) ^ 1]
}

#[inline(always)]
fn push_places(mut open: u32, first: u32, doubtful: &mut Vec<u32>) {
    while open != 0 {
        doubtful.push(first + open.trailing_zeros());
        open &= open - 1;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Thresholds, push_places, sift_portable};

    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn sift_avx512(scores: &[f32], norms: &[f32], thresholds: Thresholds, doubtful: &mut Vec<u32>) -> u64 {
        let (low, high) = (_mm512_set1_ps(thresholds.low), _mm512_set1_ps(thresholds.high));
        let slope = _mm512_set1_ps(thresholds.slope);
        let one = _mm512_set1_epi32(1);
        let mut above_by_lane = _mm512_setzero_si512();
        let mut places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        // All scores could be in doubt. A step that finds any always writes 16 places, and the next step overwrites
        // those that do not count.
        doubtful.reserve(scores.len() + 16);
        for (chunk, norms) in scores.chunks(16).zip(norms.chunks(16)) {
            let present = u16::MAX >> (16 - chunk.len());
            // SAFETY: only the values that are present are read, and `sift` checked that there are as many norms as
            // scores.
            let (scores, norms) = unsafe {
                (_mm512_maskz_loadu_ps(present, chunk.as_ptr()), _mm512_maskz_loadu_ps(present, norms.as_ptr()))
            };
            let (highest, lowest) = (_mm512_fmadd_ps(slope, norms, high), _mm512_fnmadd_ps(slope, norms, low));
            let above = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(present, scores, highest);
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(scores, lowest);
            above_by_lane = _mm512_mask_add_epi32(above_by_lane, above, above_by_lane, one);
            let open = present & !above & !below;
            if open != 0 {
                let packed = _mm512_maskz_compress_epi32(open, places);
                let len = doubtful.len();
                // SAFETY: at most one place was pushed for each earlier score, so the 16 places written now lie within
                // what was reserved. The new length takes in as many of them as `open` has bits, and the packing puts
                // those first.
                unsafe {
                    _mm512_storeu_si512(doubtful.as_mut_ptr().add(len).cast(), packed);
                    doubtful.set_len(len + open.count_ones() as usize);
                }
            }
            places = _mm512_add_epi32(places, _mm512_set1_epi32(16));
        }
        _mm512_reduce_add_epi32(above_by_lane) as u64
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn sift_avx2(scores: &[f32], norms: &[f32], thresholds: Thresholds, doubtful: &mut Vec<u32>) -> u64 {
        let (low, high) = (_mm256_set1_ps(thresholds.low), _mm256_set1_ps(thresholds.high));
        let slope = _mm256_set1_ps(thresholds.slope);
        let ((chunks, rest), (norm_chunks, norm_rest)) = (scores.as_chunks::<8>(), norms.as_chunks::<8>());
        let mut above_by_lane = _mm256_setzero_si256();
        for (number, (chunk, norms)) in chunks.iter().zip(norm_chunks).enumerate() {
            // SAFETY: each chunk holds the 8 values that are read, at any alignment.
            let (scores, norms) = unsafe { (_mm256_loadu_ps(chunk.as_ptr()), _mm256_loadu_ps(norms.as_ptr())) };
            let error = _mm256_mul_ps(slope, norms);
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(scores, _mm256_add_ps(high, error));
            let below = _mm256_cmp_ps::<_CMP_LT_OQ>(scores, _mm256_sub_ps(low, error));
            above_by_lane = _mm256_sub_epi32(above_by_lane, _mm256_castps_si256(above)); // true is -1
            let decided = _mm256_movemask_ps(_mm256_or_ps(above, below)).cast_unsigned();
            push_places(!decided & 0xff, 8 * number as u32, doubtful);
        }
        let mut lanes = [0_u32; 8];
        // SAFETY: `lanes` holds the 8 values that are written, at any alignment.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), above_by_lane) };
        let first = doubtful.len();
        let num_above = sift_portable(rest, norm_rest, thresholds, doubtful);
        doubtful[first..].iter_mut().for_each(|place| *place += 8 * chunks.len() as u32);
        num_above + lanes.into_iter().map(u64::from).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn scores_are_sifted_as_documented(
            rows in proptest::collection::vec((-3_i8..4, 0_u8..3), 0..70), low in -4_i8..4, more in 0_i8..4, slope in 0_u8..3,
        ) {
            let scores: Vec<f32> = rows.iter().map(|(score, _)| f32::from(*score)).collect();
            let norms: Vec<f32> = rows.iter().map(|(_, norm)| f32::from(*norm)).collect();
            let thresholds = Thresholds { low: f32::from(low), high: f32::from(low + more), slope: f32::from(slope) };
            let error = |at: usize| thresholds.slope * norms[at];
            let is_above = |at: &usize| scores[*at] > thresholds.high + error(*at);
            let is_open = |at: &usize| !is_above(at) && scores[*at] >= thresholds.low - error(*at);
            let mut expected = vec![7];
            expected.extend((0..scores.len()).filter(is_open).map(|at| at as u32));
            for kernel in Kernel::supported() {
                let mut doubtful = vec![7];
                let above = sift(kernel, &scores, &norms, thresholds, &mut doubtful);
                prop_assert_eq!(above, (0..scores.len()).filter(is_above).count() as u64);
                prop_assert_eq!(&doubtful, &expected);
            }
        }
    }
}
