//! Items as integers, in the order in which products read them.

use std::sync::Arc;

use rayon::prelude::*;

use super::layout::{Integers, Line, PANEL, put_pairs};
use super::precision::Precision;
use super::rounding::{Rounded, eight_of, max_norm_in_scales, round, rounded_up, scale_of_eight, whole};
#[cfg(target_arch = "x86_64")]
use super::tiles::Steps;
#[cfg(target_arch = "x86_64")]
use crate::cpu::Instructions;
use crate::{Interrupt, Kernel, Matrix, Result};

/// `PANEL` items in 16 bits, and what turns them into 8 bits: about 5 bytes an item besides its integers.
pub struct Panel {
    batch: Arc<Batch>,
    /// Its place in the batch.
    number: u32,
}

/// The most panels of a batch. Batches are smaller where a thread would otherwise get fewer than `BATCHES_PER_THREAD`.
const MAX_BATCH: usize = 512;
const BATCHES_PER_THREAD: usize = 8;

/// Panels that share their memory, because every allocation costs some bytes.
struct Batch {
    groups: Vec<[Line; 2]>,
    groups_per_panel: usize,
    details: Vec<Details>,
    /// The largest `|x|` of all items; infinite where a value is not finite.
    max_norm: f64,
}

/// What is kept of a panel besides its integers.
struct Details {
    /// The largest `|d| / |x|` at each precision, rounded up.
    loss: [f32; 2],
    /// The scale `t` of each item; see [`rounded_up`].
    scales: [u16; PANEL],
    layout: Layout,
}

/// How the integers of a panel lie, and what is kept for each item of such a panel.
enum Layout {
    /// In groups of two dimensions, with the factor that turns 16 bits into 8; see [`eight_of`].
    Groups { factors: [i16; PANEL] },
    /// In tiles (see [`super::tiles`]), with the norm in units of the scale; see [`rounded_up`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other CPU has tiles"))]
    Tiles { norms: [u16; PANEL] },
}

impl Layout {
    fn has_tiles(&self) -> bool {
        matches!(self, Self::Tiles { .. })
    }
}

impl Panel {
    /// The panels of all items; they take about half the memory of the items themselves.
    pub fn all(items: Matrix, kernel: Kernel) -> Vec<Self> {
        Self::all_until(Interrupt::NEVER, items, kernel).expect("nothing interrupts this")
    }

    /// Like [`Panel::all`], unless it is interrupted.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub fn all_until(interrupt: Interrupt, items: Matrix, kernel: Kernel) -> Result<Vec<Self>> {
        let num_panels = items.rows().div_ceil(PANEL);
        let num_batches = BATCHES_PER_THREAD * rayon::current_num_threads();
        let batch = PANEL * (num_panels / num_batches).clamp(1, MAX_BATCH);
        let starts = (0..items.rows()).into_par_iter().step_by(batch);
        let batches = starts.map(|start| {
            Self::batch(interrupt, items.slice(start, (start + batch).min(items.rows())), kernel, Vec::new())
        });
        let mut panels = Vec::with_capacity(num_panels);
        batches.collect::<Result<Vec<_>>>()?.into_iter().for_each(|batch| panels.extend(batch));
        Ok(panels)
    }

    /// The panels of a block of items. This thread computes them and reuses the memory of `used`, the panels of another
    /// block.
    pub fn block(items: Matrix, kernel: Kernel, used: Vec<Self>) -> Vec<Self> {
        let used = used.into_iter().find_map(|panel| Arc::into_inner(panel.batch)).map(|batch| batch.groups);
        Self::batch(Interrupt::NEVER, items, kernel, used.unwrap_or_default()).expect("nothing interrupts this")
    }

    fn batch(interrupt: Interrupt, items: Matrix, kernel: Kernel, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unsafe { Self::batch_amx(interrupt, items, used) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Avx512 => unsafe { Self::batch_avx512(interrupt, items, used) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { Self::batch_avx2(interrupt, items, used) },
            _ => Self::batch_in_groups(interrupt, items, used),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn batch_amx(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        let steps = Steps::new(items.dim());
        let put = |tiles: &mut [[Line; 2]], item: usize, values: &[i16]| steps.put_item(tiles, item, values);
        Self::batch_with(interrupt, items, used, || Layout::Tiles { norms: [0; PANEL] }, steps.num_pairs(), put)
    }

    /// The same code, compiled for wider registers. It consists of loops: closures would not be compiled for them.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn batch_avx512(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::batch_in_groups(interrupt, items, used)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn batch_avx2(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::batch_in_groups(interrupt, items, used)
    }

    #[inline(always)]
    fn batch_in_groups(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::batch_with(
            interrupt,
            items,
            used,
            || Layout::Groups { factors: [0; PANEL] },
            items.dim().div_ceil(2),
            put_pairs,
        )
    }

    /// Panels of `groups_per_panel` groups in the memory of `groups`; `put` writes the integers of an item into them.
    #[inline(always)]
    fn batch_with(
        interrupt: Interrupt,
        items: Matrix,
        mut groups: Vec<[Line; 2]>,
        layout: impl Fn() -> Layout,
        groups_per_panel: usize,
        put: impl Fn(&mut [[Line; 2]], usize, &[i16]),
    ) -> Result<Vec<Self>> {
        let starts = (0..items.rows()).step_by(PANEL);
        groups.clear();
        groups.reserve_exact(starts.len() * groups_per_panel);
        let details = Vec::with_capacity(starts.len());
        let mut batch = Batch { groups, groups_per_panel, details, max_norm: 0.0 };
        for (number, start) in starts.enumerate() {
            interrupt.check()?;
            let (mut scales, mut layout) = ([0; PANEL], layout());
            let mut loss = [0.0_f64; 2];
            batch.groups.resize((number + 1) * groups_per_panel, [Line::default(); 2]);
            let groups = &mut batch.groups[number * groups_per_panel..];
            for item in start..(start + PANEL).min(items.rows()) {
                let (row, item) = (items.row(item), item - start);
                let Rounded { values, scale, norm, lost: lost_in_sixteen } = round(row, layout.has_tiles());
                put(groups, item, &values);
                scales[item] = scale;
                batch.max_norm = if norm.is_finite() { norm.max(batch.max_norm) } else { f64::INFINITY };
                let lost_in_eight = match &mut layout {
                    Layout::Groups { factors } => {
                        let (factor, lost) = eight_of(row, &values, whole(scale));
                        factors[item] = factor;
                        lost
                    }
                    Layout::Tiles { norms } => {
                        norms[item] = rounded_up(norm / f64::from(whole(scale)));
                        0.0
                    }
                };
                if norm > 0.0 {
                    let lost = [lost_in_eight, lost_in_sixteen];
                    loss = std::array::from_fn(|at| loss[at].max(lost[at] / norm));
                }
            }
            batch.details.push(Details { loss: loss.map(|loss| (loss as f32).next_up()), scales, layout });
        }
        let batch = Arc::new(batch);
        Ok((0..batch.details.len() as u32).map(|number| Self { batch: batch.clone(), number }).collect())
    }

    /// The largest norm of all items of its batch; infinite where a value is not finite.
    pub fn max_norm_of_batch(&self) -> f64 {
        self.batch.max_norm
    }

    fn details(&self) -> &Details {
        &self.batch.details[self.number as usize]
    }

    pub(super) fn integers(&self) -> Integers<'_> {
        let Batch { groups, groups_per_panel, .. } = &*self.batch;
        let start = self.number as usize * groups_per_panel;
        let mut scales = [0.0; PANEL];
        for (scale, half) in scales.iter_mut().zip(self.details().scales) {
            *scale = whole(half);
        }
        Integers { groups: &groups[start..start + groups_per_panel], scales }
    }

    pub(super) fn has_tiles(&self) -> bool {
        self.details().layout.has_tiles()
    }

    /// An upper bound on `|x|` for each item.
    ///
    /// Panels in tiles keep the norm, and the bound is that norm rounded up. Other panels keep only the scale, and the
    /// bound is the largest norm that this scale allows. It exceeds `|x|` by at most 1/128, unless one value outweighs
    /// all others together. Then it is less than 1.5 `|x|`. It is larger still where the scale is below the normal
    /// range of f32.
    pub fn norms(&self, dim: usize) -> [f32; PANEL] {
        let Details { scales, layout, .. } = self.details();
        let in_scales = |item| match layout {
            Layout::Groups { .. } => max_norm_in_scales(dim),
            Layout::Tiles { norms } => f64::from(whole(norms[item])),
        };
        std::array::from_fn(|item| ((f64::from(whole(scales[item])) * in_scales(item)) as f32).next_up())
    }

    /// The largest share of an item's norm that rounding took.
    pub fn loss(&self, precision: Precision) -> f64 {
        f64::from(self.details().loss[precision as usize])
    }

    /// The factor that turns each item's 16 bits into 8; 0 for a missing item.
    ///
    /// # Panics
    /// For tiles.
    pub(super) fn factors_of_eight(&self) -> &[i16; PANEL] {
        match &self.details().layout {
            Layout::Groups { factors } => factors,
            Layout::Tiles { .. } => panic!("a panel of another kernel"),
        }
    }

    /// The scales of the items in 8 bits; 0 for a missing item.
    ///
    /// # Panics
    /// For tiles.
    pub(super) fn scales_of_eight(&self) -> [f32; PANEL] {
        let factors = self.factors_of_eight();
        std::array::from_fn(|item| match factors[item] {
            0 => 0.0,
            factor => scale_of_eight(whole(self.details().scales[item]), factor),
        })
    }
}
