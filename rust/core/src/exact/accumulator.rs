//! Sixteen partial sums of a dot product, in whatever registers a CPU has for them.

use crate::simd::{LANES, Lanes};

pub(crate) trait Accumulator: Copy {
    fn load(lanes: &Lanes) -> Self;
    /// `self + a * b`, where the product and the sum are each rounded to f32.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of all sixteen, in the order of the definition.
    fn add_lanes(self) -> f32;
}

impl Accumulator for Lanes {
    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        *lanes
    }

    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for lane in 0..LANES {
            self[lane] += a[lane] * b[lane];
        }
        self
    }

    #[inline(always)]
    fn add_lanes(self) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|l| self[l] + self[l + 8]);
        let four: [f32; 4] = std::array::from_fn(|l| eight[l] + eight[l + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
}
