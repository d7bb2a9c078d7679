//! Every user against every item by one kernel and nothing else: a bound on what `rank` could take.
//!
//!     one_kernel exact|sixteen USERS ITEMS DIM
//!
//! Reads the users and the items as f32 and the target of each user as i64 from its input; then answers each line with
//! the ranks as i64, by scores in f32 or by approximate ones from products of 16 bits that nothing checks. Scores are
//! counted as soon as a block of them is there.

use std::io::{BufRead, Read, Result, Write, stdin, stdout};

use langptune_core::filter::{PANEL, Panel, Precision, UserTile, score_panels};
use langptune_core::{Kernel, Matrix};
use rayon::prelude::*;

/// Bytes of a block of items: they stay in a second-level cache while all users pass by.
const ITEM_BYTES: usize = 512 * 1024;

/// Users beside each other, in the forms of both kernels.
struct Tile<'a> {
    rows: Matrix<'a>,
    rounded: UserTile,
}

/// Items beside each other; a block with only 16 bits has no rows.
struct Block<'a> {
    num_items: usize,
    rows: Option<Matrix<'a>>,
    panels: &'a [Panel],
}

impl Block<'_> {
    /// Scores of a tile of users, row-major, and the width of a row.
    fn score<'s>(&self, kernel: Kernel, tile: &Tile, scores: &'s mut Vec<f32>) -> (&'s [f32], usize) {
        let width = if self.rows.is_some() { self.num_items } else { self.panels.len() * PANEL };
        scores.resize(tile.rows.rows() * width, 0.0);
        match self.rows {
            Some(rows) => kernel.score_block(tile.rows, rows, scores),
            None => score_panels(kernel, Precision::Sixteen, &tile.rounded, self.panels, &[], scores),
        }
        (scores, width)
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, sizes @ ..] = arguments.as_slice() else { panic!("pass exact|sixteen USERS ITEMS DIM") };
    let sizes: Vec<usize> = sizes.iter().map(|size| size.parse().expect("a size is a number")).collect();
    let [num_users, num_items, dim] = sizes[..] else { panic!("pass exact|sixteen USERS ITEMS DIM") };
    let kernel = Kernel::from_env().expect("a kernel of this CPU");

    let users = read_floats(num_users * dim)?;
    let mut items = read_floats(num_items * dim)?;
    let mut targets = vec![0; num_users * size_of::<i64>()];
    stdin().lock().read_exact(&mut targets)?;
    let targets: Vec<usize> = targets.as_chunks().0.iter().map(|bytes| i64::from_ne_bytes(*bytes) as usize).collect();
    let panels = match kind.as_str() {
        "exact" => Vec::new(),
        "sixteen" => Panel::all(Matrix::new(&std::mem::take(&mut items), dim), kernel),
        other => panic!("there is exact and sixteen, not {other}"),
    };

    let tiles: Vec<Tile> = users
        .chunks(kernel.tile() * dim)
        .map(|rows| Matrix::new(rows, dim))
        .map(|rows| Tile { rows, rounded: UserTile::new(rows, kernel) })
        .collect();
    let block = |start: usize, end: usize| Block {
        num_items: end - start,
        rows: (!items.is_empty()).then(|| Matrix::new(&items, dim).slice(start, end)),
        panels: if items.is_empty() { &panels[start / PANEL..end.div_ceil(PANEL)] } else { &[] },
    };
    let bytes = if items.is_empty() { size_of::<i16>() } else { size_of::<f32>() };
    let size = (ITEM_BYTES / (bytes * dim)).next_multiple_of(PANEL).max(PANEL);
    let blocks: Vec<Block> =
        (0..num_items).step_by(size).map(|start| block(start, (start + size).min(num_items))).collect();

    for line in stdin().lock().lines() {
        line?;
        let own =
            own_scores(kernel, &tiles, &targets, |panel| block(panel * PANEL, ((panel + 1) * PANEL).min(num_items)));
        let ranks: Vec<u8> = ranks(kernel, &tiles, &blocks, &own).into_iter().flat_map(i64::to_ne_bytes).collect();
        stdout().write_all(&ranks)?;
        stdout().flush()?;
    }
    Ok(())
}

/// The score of each user's target.
fn own_scores<'a>(
    kernel: Kernel,
    tiles: &[Tile],
    targets: &[usize],
    panel: impl Fn(usize) -> Block<'a> + Sync,
) -> Vec<f32> {
    let of_tile = |(tile, targets): (&Tile, &[usize])| -> Vec<f32> {
        let mut scores = Vec::new();
        let of_user = |(user, target): (usize, &usize)| {
            let (scores, width) = panel(target / PANEL).score(kernel, tile, &mut scores);
            scores[user * width + target % PANEL]
        };
        targets.iter().enumerate().map(of_user).collect()
    };
    tiles.par_iter().zip(targets.par_chunks(kernel.tile())).flat_map_iter(of_tile).collect()
}

/// The rank of each user's target: 1, and the number of items that score more.
fn ranks(kernel: Kernel, tiles: &[Tile], blocks: &[Block], own: &[f32]) -> Vec<i64> {
    let above = |mut counts: Vec<i64>, block: &Block| {
        let mut scores = Vec::new();
        for (at, tile) in tiles.iter().enumerate() {
            let (scores, width) = block.score(kernel, tile, &mut scores);
            let first = kernel.tile() * at;
            let of_users = own[first..].iter().zip(&mut counts[first..]);
            for ((own, count), row) in of_users.zip(scores.chunks(width)) {
                let num_above: u32 = row[..block.num_items].iter().map(|score| u32::from(score > own)).sum();
                *count += i64::from(num_above);
            }
        }
        counts
    };
    let zero = || vec![0; own.len()];
    let sum = |a: Vec<i64>, b: Vec<i64>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
    blocks.par_iter().fold(zero, above).reduce(zero, sum).into_iter().map(|count| count + 1).collect()
}

fn read_floats(number: usize) -> Result<Vec<f32>> {
    let mut values = Vec::with_capacity(number);
    let mut part = vec![0; 1 << 20];
    while values.len() < number {
        let bytes = (size_of::<f32>() * (number - values.len())).min(part.len());
        stdin().lock().read_exact(&mut part[..bytes])?;
        values.extend(part[..bytes].as_chunks().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)));
    }
    Ok(values)
}
