//! Users as integers, in the order in which products read them.

use super::bound::ErrorBound;
use super::layout::TILE;
use super::precision::Precision;
use super::rounding::{nearest, scale_of_sixteen, size};
#[cfg(target_arch = "x86_64")]
use super::tiles::TiledUsers;
use crate::cpu::Instructions;
use crate::matrix::norm;
use crate::{Kernel, Matrix};

/// As many users as a kernel scores together ([`Kernel::tile`]). Missing users and dimensions are 0.
///
/// Their integers lie in groups of four bytes for each user.
pub struct UserTile {
    kernel: Kernel,
    /// The bounds of each user, at each precision.
    bounds: Vec<[ErrorBound; 2]>,
    /// Two integers of 16 bits in a group; empty where `four_times` or `tiled` holds them.
    pub(super) sixteen: Vec<[u32; TILE]>,
    /// The same integers four times over, for each half of the users. The portable kernel of x86 has them, because its
    /// registers of four lanes would need a shuffle to spread one value.
    pub(super) four_times: [Vec<[[u32; 4]; TILE / 2]>; 2],
    /// Four integers of 8 bits in a group, 128 added to each; empty for a kernel without products of 8 bits.
    pub(super) eight: Vec<[u32; TILE]>,
    /// The integers of 16 bits as tiles, for the kernel that has tiles; all other integers are then empty.
    #[cfg(target_arch = "x86_64")]
    pub(super) tiled: Option<TiledUsers>,
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
                Self::new_avx512(users, kernel)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { Self::new_avx2(users, kernel) },
            _ => Self::new_inlined(users, kernel),
        }
    }

    /// The same code, compiled for wider registers. It consists of loops: closures would not be compiled for them.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn new_avx512(users: Matrix, kernel: Kernel) -> Self {
        Self::new_inlined(users, kernel)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn new_avx2(users: Matrix, kernel: Kernel) -> Self {
        Self::new_inlined(users, kernel)
    }

    #[inline(always)]
    fn new_inlined(users: Matrix, kernel: Kernel) -> Self {
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
            tiled: kernel.has_tiles().then(|| TiledUsers::zeros(dim)),
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
        if let Some(tiles) = &mut self.tiled {
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

    /// Number of bytes for each value of each user, in a full tile.
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

    /// Whether it holds no users.
    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// How far the approximate scores of one of the users can be from the exact ones.
    pub fn error_bound(&self, user: usize, precision: Precision) -> &ErrorBound {
        &self.bounds[user][precision as usize]
    }
}

/// The nearest integers of a row in units of `scale`, and the bound on the error of their products.
#[inline(always)]
fn round(row: &[f32], row_norm: f64, scale: f32, has_tiles: bool) -> (Vec<i32>, ErrorBound) {
    let mut integers = vec![0; row.len()];
    for (integer, value) in integers.iter_mut().zip(row) {
        *integer = nearest(value / scale);
    }
    let scale = f64::from(scale);
    let values = &integers[..row.len()];
    let rounded = norm(row.len(), |at| scale * f64::from(values[at]));
    let lost = norm(row.len(), |at| f64::from(row[at]) - scale * f64::from(values[at]));
    (integers, ErrorBound::new(row.len(), scale, row_norm, rounded, lost, has_tiles))
}

/// The lower `bits` of each integer, the first in the lowest place.
#[inline(always)]
fn join(integers: &[i32], bits: usize) -> u32 {
    let mut joined = 0;
    for (at, integer) in integers.iter().enumerate() {
        joined |= (integer.cast_unsigned() & ((1 << bits) - 1)) << (bits * at);
    }
    joined
}
