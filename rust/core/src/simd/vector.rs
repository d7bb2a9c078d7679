//! What a vector of sixteen float32 numbers can do, and the one that every CPU has.

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
