//! Products of rows with the transposed matrix of a linear layer.
//!
//! The matrix is kept in panels of 32 outputs, so that two vectors hold the weights of an input. A task takes some rows
//! and some panels. It goes through a panel in slices of inputs that stay in the fastest cache while tile after tile of
//! rows is multiplied with them: a tile's sums are in registers within a slice, and in memory between slices. So each
//! output is one sum over the inputs in their order, whatever rows it is computed with.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::output::Output;
use crate::simd::{LANES, Lanes, Vector, Work};
use crate::{Kernel, Matrix};

/// Outputs in a panel.
const PANEL: usize = 2 * LANES;
/// Rows in a tile.
const TILE: usize = 12;
/// Tiles of a task: few enough that their rows stay in a core's cache.
const TILES: usize = 8;
/// Panels of a task.
const PANELS: usize = 8;
/// Inputs in a slice: 16 KiB of a panel.
const SLICE: usize = 128;

/// The weights of a linear layer, (outputs, inputs), in panels.
pub struct PackedMatrix {
    num_outputs: usize,
    num_inputs: usize,
    weights: Weights,
}

/// Panel by panel, input by input, the weights for 32 outputs; the last panel is filled up with zeros.
enum Weights {
    Half(Vec<[[u16; LANES]; 2]>),
    Single(Vec<[Lanes; 2]>),
}

impl PackedMatrix {
    /// Packs float32 weights, row-major (outputs, inputs).
    ///
    /// # Panics
    /// When there are no inputs, or they do not divide the number of weights.
    pub fn from_f32(weights: &[f32], num_inputs: usize) -> Self {
        let num_outputs = num_outputs(weights.len(), num_inputs);
        Self { num_outputs, num_inputs, weights: Weights::Single(panels(weights, num_outputs, num_inputs)) }
    }

    /// Packs weights in bfloat16, given as the bits of each, row-major (outputs, inputs).
    ///
    /// # Panics
    /// Like [`Self::from_f32`].
    pub fn from_bf16(weights: &[u16], num_inputs: usize) -> Self {
        let num_outputs = num_outputs(weights.len(), num_inputs);
        Self { num_outputs, num_inputs, weights: Weights::Half(panels(weights, num_outputs, num_inputs)) }
    }

    /// Writes the product of `rows` (rows, inputs) with the transposed matrix to `out`, row-major (rows, outputs).
    ///
    /// # Panics
    /// When the sizes do not fit each other.
    pub fn product(&self, rows: Matrix, out: &mut [f32], kernel: Kernel) {
        assert_eq!(rows.dim(), self.num_inputs, "inputs");
        assert_eq!(out.len(), rows.rows() * self.num_outputs, "outputs");
        let tiles = Tiles::new(rows);
        let num_panels = self.num_outputs.div_ceil(PANEL);
        let num_blocks = rows.rows().div_ceil(TILES * TILE);
        let (num_rows, out) = (rows.rows(), Output::new(out));
        (0..num_panels.div_ceil(PANELS) * num_blocks).into_par_iter().for_each(|task| {
            // Tasks that follow each other read the same panels.
            let (group, block) = (task / num_blocks, task % num_blocks);
            let panels = group * PANELS..num_panels.min((group + 1) * PANELS);
            let rows = block * TILES * TILE..num_rows.min((block + 1) * TILES * TILE);
            SCRATCH.with_borrow_mut(|scratch| {
                kernel.compute(Part { matrix: self, tiles: &tiles, panels, rows, out, scratch });
            });
        });
    }

    /// The lines of a panel for some inputs.
    fn lines(&self, panel: usize, inputs: &Range<usize>) -> Range<usize> {
        panel * self.num_inputs + inputs.start..panel * self.num_inputs + inputs.end
    }
}

fn num_outputs(num_weights: usize, num_inputs: usize) -> usize {
    assert!(num_inputs > 0 && num_weights.is_multiple_of(num_inputs), "{num_weights} weights of {num_inputs} inputs");
    num_weights / num_inputs
}

fn panels<T: Copy + Default + Send + Sync>(
    weights: &[T],
    num_outputs: usize,
    num_inputs: usize,
) -> Vec<[[T; LANES]; 2]> {
    let mut panels = vec![[[T::default(); LANES]; 2]; num_outputs.div_ceil(PANEL) * num_inputs];
    panels.par_chunks_mut(num_inputs).enumerate().for_each(|(number, panel)| {
        for (place, output) in (number * PANEL..num_outputs.min((number + 1) * PANEL)).enumerate() {
            let row = &weights[output * num_inputs..][..num_inputs];
            for (line, weight) in panel.iter_mut().zip(row) {
                line[place / LANES][place % LANES] = *weight;
            }
        }
    });
    panels
}

/// The rows in tiles: input by input, its value in each row of the tile. The last tile is filled up with zeros.
struct Tiles {
    values: Vec<[f32; TILE]>,
    num_inputs: usize,
}

impl Tiles {
    fn new(rows: Matrix) -> Self {
        let num_inputs = rows.dim();
        let mut values = vec![[0.0; TILE]; rows.rows().div_ceil(TILE) * num_inputs];
        values.par_chunks_mut(num_inputs).with_min_len(4).enumerate().for_each(|(number, tile)| {
            for (place, row) in (number * TILE..rows.rows().min((number + 1) * TILE)).enumerate() {
                for (line, value) in tile.iter_mut().zip(rows.row(row)) {
                    line[place] = *value;
                }
            }
        });
        Self { values, num_inputs }
    }

    /// The rows of a tile at some inputs.
    fn tile(&self, number: usize, inputs: &Range<usize>) -> &[[f32; TILE]] {
        &self.values[number * self.num_inputs..][inputs.clone()]
    }
}

type Sums = [[Lanes; 2]; TILE];

/// What a task needs besides its arguments, from a cache line on, kept for the next task of its thread.
#[repr(C, align(64))]
struct Scratch {
    /// A slice of a panel in float32.
    widened: [[Lanes; 2]; SLICE],
    sums: [Sums; TILES],
}

thread_local! {
    static SCRATCH: RefCell<Box<Scratch>> =
        RefCell::new(Box::new(Scratch { widened: [[[0.0; LANES]; 2]; SLICE], sums: [[[[0.0; LANES]; 2]; TILE]; TILES] }));
}

/// One task: some rows, from a whole tile on, times some panels.
struct Part<'a> {
    matrix: &'a PackedMatrix,
    tiles: &'a Tiles,
    panels: Range<usize>,
    rows: Range<usize>,
    out: Output<'a>,
    scratch: &'a mut Scratch,
}

impl Work for Part<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { matrix, tiles, panels, rows, out, scratch } = self;
        let Scratch { widened, sums } = scratch;
        let num_tiles = rows.len().div_ceil(TILE);
        for panel in panels {
            sums[..num_tiles].fill([[[0.0; LANES]; 2]; TILE]);
            let mut first = 0;
            while first < matrix.num_inputs {
                let inputs = first..matrix.num_inputs.min(first + SLICE);
                first = inputs.end;
                let lines = matrix.lines(panel, &inputs);
                let weights = match &matrix.weights {
                    Weights::Single(weights) => &weights[lines],
                    Weights::Half(weights) => {
                        let widened = &mut widened[..lines.len()];
                        for (wide, narrow) in widened.iter_mut().zip(&weights[lines]) {
                            V::widen(&narrow[0]).store(&mut wide[0]);
                            V::widen(&narrow[1]).store(&mut wide[1]);
                        }
                        &*widened
                    }
                };
                for (number, sums) in sums[..num_tiles].iter_mut().enumerate() {
                    let tile = tiles.tile(rows.start / TILE + number, &inputs);
                    // How many rows at a time stay in registers, and how many there are.
                    match (V::REGISTERS, rows.len() - number * TILE) {
                        (32, 5..) => add::<V, 12>(tile, weights, sums, 0),
                        (32, _) => add::<V, 4>(tile, weights, sums, 0),
                        (8, count) => {
                            for row in (0..count.min(TILE)).step_by(2) {
                                add::<V, 2>(tile, weights, sums, row);
                            }
                        }
                        (_, count) => {
                            for row in 0..count.min(TILE) {
                                add::<V, 1>(tile, weights, sums, row);
                            }
                        }
                    }
                }
            }
            let start = panel * PANEL;
            let count = PANEL.min(matrix.num_outputs - start);
            for (row, sums) in rows.clone().zip(sums.as_flattened()) {
                let place = row * matrix.num_outputs + start;
                // SAFETY: the row and the panel are of this task.
                unsafe {
                    match count {
                        PANEL => out.write_all(place, sums),
                        _ => out.write(place, &sums.as_flattened()[..count]),
                    }
                }
            }
        }
    }
}

/// Adds the products of `R` rows of a tile from `row` on to their sums.
#[inline(always)]
fn add<V: Vector, const R: usize>(tile: &[[f32; TILE]], weights: &[[Lanes; 2]], sums: &mut Sums, row: usize) {
    assert!(row + R <= TILE);
    let mut registers = [[V::splat(0.0); 2]; R];
    for r in 0..R {
        for v in 0..2 {
            registers[r][v] = V::load(&sums[row + r][v]);
        }
    }
    for (values, weights) in tile.iter().zip(weights) {
        let weights = [V::load(&weights[0]), V::load(&weights[1])];
        for r in 0..R {
            let value = V::splat(values[row + r]);
            for v in 0..2 {
                registers[r][v] = registers[r][v].add_product(value, weights[v]);
            }
        }
    }
    for r in 0..R {
        for v in 0..2 {
            registers[r][v].store(&mut sums[row + r][v]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::narrowed;

    fn widened(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut random = crate::random::Random::new(seed, 0);
        (0..count).map(|_| random.below(20_001) as f32 / 10_000.0 - 1.0).collect()
    }

    #[test]
    fn products_are_those_of_float64() {
        for (num_rows, num_inputs, num_outputs) in
            [(1, 1, 1), (5, 7, 17), (12, 64, 32), (13, 3, 300), (230, 33, 70), (14, 600, 40)]
        {
            let rows = numbers(num_rows * num_inputs, 1);
            let weights = numbers(num_outputs * num_inputs, 2);
            let half: Vec<u16> = weights.iter().copied().map(narrowed).collect();
            for kernel in Kernel::supported() {
                for (matrix, of) in [
                    (PackedMatrix::from_f32(&weights, num_inputs), weights.clone()),
                    (PackedMatrix::from_bf16(&half, num_inputs), half.iter().copied().map(widened).collect()),
                ] {
                    let mut out = vec![f32::NAN; num_rows * num_outputs];
                    matrix.product(Matrix::new(&rows, num_inputs), &mut out, kernel);
                    for row in 0..num_rows {
                        for output in 0..num_outputs {
                            let products = (0..num_inputs).map(|input| {
                                f64::from(rows[row * num_inputs + input]) * f64::from(of[output * num_inputs + input])
                            });
                            let error = f64::from(out[row * num_outputs + output]) - products.sum::<f64>();
                            assert!(error.abs() < 3e-5, "{} {num_rows} {row} {output}", kernel.name());
                        }
                    }
                    let mut alone = vec![f32::NAN; num_outputs];
                    let last = Matrix::new(&rows, num_inputs).slice(num_rows - 1, num_rows);
                    matrix.product(last, &mut alone, kernel);
                    assert_eq!(alone, out[(num_rows - 1) * num_outputs..], "a row is the same in any batch");
                }
            }
        }
    }
}
