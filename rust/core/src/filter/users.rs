//! Users as integers, in the order in which products read them.

#[cfg(target_arch = "x86_64")]
use super::amx;
use super::items::{nearest, scale_of_sixteen, size};
use super::{ErrorBound, Precision};
use crate::kernel::Instructions;
use crate::matrix::norm;
use crate::{Kernel, Matrix};

/// Users of a tile of every kernel but AMX: with a panel of items they take 24 of 32 registers for their sums.
pub(crate) const TILE: usize = 12;

/// As many users as a kernel scores together ([`Kernel::tile`]), group by group of four bytes, each of all of them.
/// Missing users and dimensions are 0.
pub struct UserTile {
    kernel: Kernel,
    /// Of each user, at each precision.
    bounds: Vec<[ErrorBound; 2]>,
    /// Two integers of 16 bits a group.
    pub(super) sixteen: Vec<[u32; TILE]>,
    /// In place of those, for the kernel whose registers of four lanes would spread one value by a shuffle: the same of
    /// either half of the users, four times over.
    pub(super) four_times: [Vec<[[u32; 4]; TILE / 2]>; 2],
    /// Four of 8 bits a group, 128 added to each; empty for a kernel without.
    pub(super) eight: Vec<[u32; TILE]>,
    /// Those of 16 bits as tiles, for the kernel that has them; then all others are empty.
    #[cfg(target_arch = "x86_64")]
    pub(super) amx: Option<amx::Users>,
}

impl UserTile {
    /// Rounds users at the precisions of a kernel.
    ///
    /// # Panics
    /// For more than [`Kernel::tile`] users.
    pub fn new(users: Matrix, kernel: Kernel) -> Self {
        assert!(users.rows() <= kernel.tile());
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Vnni | Instructions::Avx512 => unsafe {
                Self::with_avx512(users, kernel)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { Self::with_avx2(users, kernel) },
            _ => Self::of(users, kernel),
        }
    }

    /// The same code, compiled for wider registers: loops, since closures would not be.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn with_avx512(users: Matrix, kernel: Kernel) -> Self {
        Self::of(users, kernel)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(users: Matrix, kernel: Kernel) -> Self {
        Self::of(users, kernel)
    }

    #[inline(always)]
    fn of(users: Matrix, kernel: Kernel) -> Self {
        let dim = users.dim();
        let num_quads = if kernel.precisions(dim).contains(&Precision::Eight) { dim.div_ceil(4) } else { 0 };
        let num_pairs = if kernel.has_tiles() { 0 } else { dim.div_ceil(2) };
        let mut tile = Self {
            kernel,
            bounds: Vec::with_capacity(users.rows()),
            sixteen: vec![[0; TILE]; num_pairs],
            four_times: [Vec::new(), Vec::new()],
            eight: vec![[0; TILE]; num_quads],
            #[cfg(target_arch = "x86_64")]
            amx: kernel.has_tiles().then(|| amx::Users::empty(dim)),
        };
        for user in 0..users.rows() {
            tile.push(users.row(user));
        }
        if Self::is_four_times_over(kernel) {
            let four_times =
                |half: usize, group: &[u32; TILE]| std::array::from_fn(|user| [group[half * TILE / 2 + user]; 4]);
            tile.four_times = [0, 1].map(|half| tile.sixteen.iter().map(|group| four_times(half, group)).collect());
            tile.sixteen = Vec::new();
        }
        tile
    }

    #[inline(always)]
    fn push(&mut self, row: &[f32]) {
        let at = self.bounds.len();
        let (norm, largest) = size(row);
        let scale = scale_of_sixteen(norm, largest, row.len(), self.has_tiles());
        let (integers, sixteen) = round(row, norm, scale, self.has_tiles());
        for (group, pair) in self.sixteen.iter_mut().zip(integers.chunks(2)) {
            group[at] = join(pair, 16);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(tiles) = &mut self.amx {
            tiles.put(at, &integers);
        }
        let mut bounds = [ErrorBound::default(), sixteen];
        if !self.eight.is_empty() {
            let (mut integers, eight) = round(row, norm, (largest / 127.0).next_up(), false);
            integers.iter_mut().for_each(|integer| *integer += 128);
            for (group, quad) in self.eight.iter_mut().zip(integers.chunks(4)) {
                group[at] = join(quad, 8);
            }
            bounds[Precision::Eight as usize] = eight;
        }
        self.bounds.push(bounds);
    }

    #[inline(always)]
    fn has_tiles(&self) -> bool {
        self.kernel.has_tiles()
    }

    fn is_four_times_over(kernel: Kernel) -> bool {
        cfg!(target_arch = "x86_64") && kernel.instructions() == Instructions::Portable
    }

    /// Bytes that a tile of whole users takes for each of their values.
    pub fn bytes_per_value(kernel: Kernel) -> usize {
        if Self::is_four_times_over(kernel) { 4 * size_of::<i16>() } else { size_of::<i16>() + size_of::<i8>() }
    }

    /// The kernel that it is for.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// How far the approximate scores of one of the users can be from the exact ones.
    pub fn error_bound(&self, user: usize, precision: Precision) -> &ErrorBound {
        &self.bounds[user][precision as usize]
    }
}

/// The nearest integers of a row of known norm in units of `scale`, and the bound on what their products miss.
#[inline(always)]
fn round(row: &[f32], row_norm: f64, scale: f32, has_tiles: bool) -> (Vec<i32>, ErrorBound) {
    let mut integers = vec![0; row.len()];
    for (integer, value) in integers.iter_mut().zip(row) {
        *integer = nearest(value / scale);
    }
    let scale = f64::from(scale);
    let of = &integers[..row.len()];
    let rounded = norm(row.len(), |at| scale * f64::from(of[at]));
    let lost = norm(row.len(), |at| f64::from(row[at]) - scale * f64::from(of[at]));
    (integers, ErrorBound::new(row.len(), scale, row_norm, rounded, lost, has_tiles))
}

/// The lower `bits` of each integer, the first in the lowest.
#[inline(always)]
fn join(integers: &[i32], bits: usize) -> u32 {
    let mut joined = 0;
    for (at, integer) in integers.iter().enumerate() {
        joined |= (integer.cast_unsigned() & ((1 << bits) - 1)) << (bits * at);
    }
    joined
}
