//! All scores, block by block, taken into a state of each user: the loop that ranking and searching share.

use std::ops::Range;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use crate::filter::{self, EightBits, ErrorBound, PANEL, Panel, Precision, UserTile};
use crate::index::Blocks;
use crate::matrix::AlignedRows;
use crate::{ItemIndex, Kernel, Matrix, Ragged, Result};

/// What an item that is excluded scores: less than any other, since scores are finite.
pub(crate) const EXCLUDED: f32 = f32::NEG_INFINITY;

/// What is made of the scores of one user: a state that takes in the items block by block.
///
/// A user's items come in increasing order within a state, but states are split and merged as the threads allow, and
/// scores come exactly or sifted as is faster: the result must not depend on that. Items count from the first of the
/// index.
pub(crate) trait Fold: Sync {
    type State: Send;

    /// Whether sifted items, so many for so many users, must come with their scores.
    fn needs_scores(&self, num_items: usize, num_users: usize) -> bool;

    fn start(&self, user: usize) -> Self::State;

    /// Takes in the exact scores of the items from `first_item` on, some of which may be [`EXCLUDED`].
    fn take(&self, state: &mut Self::State, user: usize, first_item: usize, scores: &[f32]);

    /// How well the next `num_items` items can be sifted, after `num_before`.
    fn sieve(&self, user: usize, state: &Self::State, num_before: usize, num_items: usize) -> Sieve;

    /// The pairs of scores (low, high) that the same items are to be sifted by.
    fn bars(&self, state: &Self::State, user: usize, row: &Row, bars: &mut Vec<(f32, f32)>);

    /// Takes in the items sifted by one of these: the number of those that surely score more than `high`, and all others
    /// that do not surely score less than `low`, by increasing item, each with two scores that its own lies between.
    /// Both are its own where the fold needs it, and where it was computed.
    fn take_sifted(
        &self,
        state: &mut Self::State,
        user: usize,
        bar: usize,
        num_above: u64,
        doubtful: impl Iterator<Item = (usize, f32, f32)>,
    );

    /// Ends the states of some users, which have seen all items of a part.
    fn settle(&self, _states: &mut [Self::State], _first_user: usize) -> Result<()> {
        Ok(())
    }

    /// Takes in a state of the same user, of other items; both were settled.
    fn merge(&self, state: &mut Self::State, other: Self::State);
}

/// How well the items to come can be sifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sieve {
    /// Hardly: most must be scored exactly.
    None,
    /// By a score that many will pass.
    Coarse,
    /// By a score that decides.
    Fine,
}

/// Approximate scores of one user with the items of a block.
pub(crate) struct Row<'a> {
    scores: &'a [f32],
    norms: &'a [f32],
    bound: &'a ErrorBound,
    slope: f32,
}

impl Row<'_> {
    /// The largest score that at least `count` of the items surely reach; minus infinity for fewer items, and where f32
    /// does not hold what so many surely reach.
    pub(crate) fn reached_by(&self, count: usize) -> f32 {
        let least = self.scores.iter().zip(self.norms).map(|(score, norm)| score - self.slope * norm);
        let mut least: Vec<f32> = least.map(|least| if least.is_finite() { least } else { EXCLUDED }).collect();
        if least.len() < count {
            return f32::NEG_INFINITY;
        }
        self.bound.reached(*least.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1)
    }
}

/// Which precision a tile of users is sifted with: one that leaves too much in doubt is given up.
struct Trust {
    precisions: &'static [Precision],
    /// Whether this precision did well on the block before.
    is_earned: bool,
    pause: usize,
    next_pause: usize,
}

impl Trust {
    /// So many tiles in a row speak for the whole block.
    const MAX_IN_VAIN: usize = 2;

    fn new(precisions: &'static [Precision]) -> Self {
        Self { precisions, is_earned: false, pause: 0, next_pause: 4 }
    }

    /// The precision to begin a block with.
    fn begin(&mut self, sieve: Sieve) -> Option<Precision> {
        self.pause = self.pause.saturating_sub(1);
        match sieve {
            _ if self.pause > 0 => None,
            Sieve::None => None,
            Sieve::Coarse => self.precisions.last().copied(),
            Sieve::Fine => self.precisions.first().copied(),
        }
    }

    /// How many doubts are too many: above this share of the pairs, what comes next would be faster. The fewer the
    /// dimensions, the more of the time it takes to score a single pair goes into anything but its products. (A fold
    /// that keeps doubts for later might bear more of them; it too has to score them in the end where they stay.)
    fn max_doubts(precision: Precision, dim: usize, num_pairs: usize) -> usize {
        let (share, overhead) = match precision {
            Precision::Eight => (0.12, 48.0),
            Precision::Sixteen => (0.18, 32.0),
        };
        16 + (share * dim as f64 / (dim as f64 + overhead) * num_pairs as f64) as usize
    }

    /// What to try next, on this block and the ones to come: 16 bits, or exact scores for a while, longer each time.
    fn disappointed_by(&mut self, precision: Precision) -> Option<Precision> {
        self.is_earned = false;
        if precision == Precision::Eight {
            self.precisions = &[Precision::Sixteen];
            return Some(Precision::Sixteen);
        }
        self.pause = self.next_pause;
        self.next_pause *= 2;
        None
    }
}

/// Users that are scored together, [`Kernel::tile`] at most.
struct Group {
    users: Range<usize>,
    rows: AlignedRows,
    tile: UserTile,
    trust: Trust,
    /// Where in each user's row of exclusions the items to come begin.
    next_excluded: Vec<usize>,
}

/// A block of items.
struct Block<'a> {
    first_item: usize,
    /// Items that the states have seen.
    num_before: usize,
    items: Matrix<'a>,
    panels: &'a [Panel],
    norms: Vec<f32>,
    /// The largest loss of its panels at 8 and 16 bits.
    loss: [f64; 2],
}

impl<'a> Block<'a> {
    fn new(num_before: usize, items: Range<usize>, all_items: Matrix<'a>, panels: &'a [Panel]) -> Self {
        let loss = |precision| panels.iter().map(|panel| panel.loss(precision)).fold(0.0, f64::max);
        Self {
            first_item: items.start,
            num_before,
            items: all_items.slice(items.start, items.end),
            panels,
            norms: panels.iter().flat_map(|panel| panel.norms(all_items.dim())).take(items.len()).collect(),
            loss: [loss(Precision::Eight), loss(Precision::Sixteen)],
        }
    }

    /// Its first panels, which tell what the others are like.
    fn beginning(&self) -> Self {
        let num_panels = self.panels.len().div_ceil(8);
        let num_items = self.items.rows().min(num_panels * PANEL);
        Self {
            items: self.items.slice(0, num_items),
            panels: &self.panels[..num_panels],
            norms: self.norms[..num_items].to_vec(),
            ..*self
        }
    }
}

/// The items of a block that are excluded for the users of a tile.
#[derive(Default)]
struct Excluded {
    /// Their places in the block, user by user, increasing.
    places: Vec<u32>,
    /// Where the places of each user end.
    ends: Vec<usize>,
}

impl Excluded {
    /// Takes the items `ids` of the rows of a group, in place of what was here.
    fn take(&mut self, exclude: &Ragged, group: &mut Group, ids: Range<usize>) {
        self.places.clear();
        self.ends.clear();
        if exclude.values().is_empty() {
            return;
        }
        for (user, next) in group.users.clone().zip(&mut group.next_excluded) {
            let within = exclude.row(user)[*next..].iter().take_while(|item| **item < ids.end);
            let start = self.places.len();
            self.places.extend(within.map(|item| (item - ids.start) as u32));
            self.ends.push(self.places.len());
            *next += self.places.len() - start;
        }
    }

    fn of(&self, user: usize) -> &[u32] {
        if self.places.is_empty() {
            return &[];
        }
        let start = user.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[start..self.ends[user]]
    }

    fn contains(&self, user: usize, place: u32) -> bool {
        self.of(user).binary_search(&place).is_ok()
    }

    /// Writes the score of excluded items over theirs, in rows of `width` scores, as many as there are of the block.
    fn mark(&self, scores: &mut [f32], width: usize) {
        if self.places.is_empty() {
            return;
        }
        for (user, scores) in scores.chunks_mut(width).enumerate() {
            let places = self.of(user).iter().map(|place| *place as usize);
            places.take_while(|place| *place < width).for_each(|place| scores[place] = EXCLUDED);
        }
    }
}

/// Buffers that every block uses again.
#[derive(Default)]
struct Scratch {
    excluded: Excluded,
    /// The first panels of the block in 8 bits, as far as tiles asked for them.
    eight: Vec<EightBits>,
    num_eight: usize,
    /// Tiles in a row that were sifted in vain.
    num_in_vain: usize,
    scores: Vec<f32>,
    bars: Vec<(f32, f32)>,
    places: Vec<u32>,
    doubts: Doubts,
    exact: Vec<f32>,
}

/// The items in doubt of all bars of a tile.
#[derive(Default)]
struct Doubts {
    /// (user of the tile, item of the block).
    pairs: Vec<(usize, usize)>,
    /// (user of the tile, bar, items surely above, end of its pairs).
    rows: Vec<(usize, usize, u64, usize)>,
}

impl Doubts {
    fn clear(&mut self) {
        self.pairs.clear();
        self.rows.clear();
    }
}

impl ItemIndex<'_> {
    /// Scores all users with all items, block by block, and folds each row of scores into the state of its user.
    /// `exclude` holds sorted rows.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn fold_scores<F: Fold>(&self, users: Matrix, exclude: &Ragged, fold: &F) -> Result<Vec<F::State>> {
        // Users first: a state that sees all items has the better scores to sift by.
        let num_tasks = if rayon::current_num_threads() > 1 { 2 * rayon::current_num_threads() } else { 1 };
        let num_blocks = users.rows().div_ceil(self.blocks.users).max(num_tasks.min(users.rows() / Blocks::MIN_USERS));
        let tile = self.prepared.kernel.tile();
        let user_blocks = users.rows().div_ceil(num_blocks.max(1)).next_multiple_of(tile).min(self.blocks.users);
        let user_blocks = split(0..users.rows(), user_blocks.max(1));
        let item_blocks = self.num_items().div_ceil(self.blocks.items);
        let item_parts = num_tasks.div_ceil(user_blocks.len().max(1)).min(item_blocks);
        let item_parts = split(0..self.num_items(), self.num_items().div_ceil(item_parts).next_multiple_of(PANEL));
        let merge = |mut left: Vec<F::State>, right: Vec<F::State>| {
            left.iter_mut().zip(right).for_each(|(left, right)| fold.merge(left, right));
            Ok(left)
        };
        let states: Result<Vec<Vec<F::State>>> = user_blocks
            .into_par_iter()
            .map(|user_block| {
                item_parts
                    .par_iter()
                    .map(|item_part| self.fold_part(users, exclude, user_block.clone(), item_part.clone(), fold))
                    .try_reduce_with(merge)
                    .expect("an index holds at least one item")
            })
            .collect();
        Ok(states?.into_iter().flatten().collect())
    }

    /// One thread's share: the states of some users after some of the items, which start with a panel.
    fn fold_part<F: Fold>(
        &self,
        users: Matrix,
        exclude: &Ragged,
        user_block: Range<usize>,
        item_part: Range<usize>,
        fold: &F,
    ) -> Result<Vec<F::State>> {
        let kernel = self.prepared.kernel;
        let panels = self.prepared.panels.as_deref();
        let precisions = kernel.precisions(users.dim());
        let is_worth_it = panels.is_some() || user_block.len() >= Blocks::MIN_USERS_TO_ROUND;
        let sifts = is_worth_it && !precisions.is_empty();
        let group = |range: Range<usize>| {
            let rows = users.slice(range.start, range.end);
            let trust = Trust::new(if sifts { precisions } else { &[] });
            let first_id = self.first_item + item_part.start;
            let next = |user| exclude.row(user).partition_point(|item| *item < first_id);
            let next_excluded = range.clone().map(next).collect();
            Group {
                users: range,
                rows: AlignedRows::copy(rows),
                tile: UserTile::new(rows, kernel),
                trust,
                next_excluded,
            }
        };
        let mut groups: Vec<Group> = split(user_block.clone(), kernel.tile()).into_iter().map(group).collect();
        let mut states: Vec<F::State> = user_block.clone().map(|user| fold.start(user)).collect();
        let mut scratch = Scratch::default();
        let mut num_rescored = 0;
        let mut rounded = Vec::new();
        for items in split(item_part.clone(), self.blocks.items.next_multiple_of(PANEL)) {
            let panels = match panels {
                Some(panels) => &panels[items.start / PANEL..items.end.div_ceil(PANEL)],
                None if sifts => {
                    rounded = Panel::block(self.items.slice(items.start, items.end), kernel, rounded);
                    &rounded[..]
                }
                None => &[],
            };
            let ids = self.first_item + items.start..self.first_item + items.end;
            let block = Block::new(items.start - item_part.start, items, self.items, panels);
            scratch.num_eight = 0;
            scratch.num_in_vain = 0;
            for (group, states) in groups.iter_mut().zip(states.chunks_mut(kernel.tile())) {
                self.interrupt.check()?;
                scratch.excluded.take(exclude, group, ids.clone());
                num_rescored += self.fold_block(group, &block, fold, states, &mut scratch);
            }
        }
        fold.settle(&mut states, user_block.start)?;
        let num_scores = user_block.len() * item_part.len();
        self.prepared.num_scores.fetch_add(num_scores as u64, Ordering::Relaxed);
        self.prepared.num_rescored.fetch_add(num_rescored as u64, Ordering::Relaxed);
        Ok(states)
    }

    /// Takes a block of items into the states of a tile of users, and returns how many scores were computed exactly.
    fn fold_block<F: Fold>(
        &self,
        group: &mut Group,
        block: &Block,
        fold: &F,
        states: &mut [F::State],
        scratch: &mut Scratch,
    ) -> usize {
        let kernel = self.prepared.kernel;
        let sieve = |(user, state)| fold.sieve(user, state, block.num_before, block.items.rows());
        let sieves = group.users.clone().zip(&*states).map(sieve);
        let sieve = sieves.min().unwrap_or(Sieve::None);
        let in_vain = scratch.num_in_vain >= Trust::MAX_IN_VAIN; // then it is the items, and not these users
        let mut precision = group.trust.begin(sieve).filter(|_| !in_vain);
        while let Some(tried) = precision {
            let mut sifts = |block: &Block| sift_block(kernel, tried, group, block, fold, states, scratch);
            let is_promising = group.trust.is_earned || sieve != Sieve::Fine || sifts(&block.beginning());
            if is_promising && sifts(block) {
                group.trust.is_earned = true;
                scratch.num_in_vain = 0;
                let Scratch { doubts, exact, scores, .. } = scratch;
                // What 8 bits say is too rough to keep: a later bar would be much lower than by exact scores.
                let is_rough = tried == Precision::Eight;
                let scores_doubts = is_rough || fold.needs_scores(doubts.pairs.len(), group.users.len());
                if scores_doubts {
                    kernel.score_pairs(group.rows.rows(), block.items, &doubts.pairs, exact);
                }
                let width = block.panels.len() * PANEL;
                let mut start = 0;
                for &(user, bar, num_above, end) in &doubts.rows {
                    let bound = group.tile.error_bound(user, tried);
                    let slope = bound.slope(block.loss[tried as usize]);
                    let between = |at: usize| {
                        let (_, place) = doubts.pairs[at];
                        let (low, high) = if scores_doubts {
                            (exact[at], exact[at])
                        } else {
                            bound.around(scores[user * width + place], slope * block.norms[place])
                        };
                        (block.first_item + place, low, high)
                    };
                    let doubtful = (start..end).map(between);
                    fold.take_sifted(&mut states[user], group.users.start + user, bar, num_above, doubtful);
                    start = end;
                }
                return if scores_doubts { doubts.pairs.len() } else { 0 };
            }
            precision = group.trust.disappointed_by(tried);
            scratch.num_in_vain += usize::from(precision.is_none());
        }
        let num_pairs = group.users.len() * block.items.rows();
        scratch.exact.resize(num_pairs, 0.0);
        kernel.score_block(group.rows.rows(), block.items, &mut scratch.exact);
        scratch.excluded.mark(&mut scratch.exact, block.items.rows());
        let rows = scratch.exact.chunks(block.items.rows());
        for ((state, user), scores) in states.iter_mut().zip(group.users.clone()).zip(rows) {
            fold.take(state, user, block.first_item, scores);
        }
        num_pairs
    }
}

/// Lists the items of a block that stay in doubt for a tile of users; false when they are too many.
fn sift_block<F: Fold>(
    kernel: Kernel,
    precision: Precision,
    group: &Group,
    block: &Block,
    fold: &F,
    states: &[F::State],
    scratch: &mut Scratch,
) -> bool {
    let Scratch { eight, num_eight, excluded, scores, bars, places, doubts, .. } = scratch;
    if precision == Precision::Eight && *num_eight < block.panels.len() {
        eight.resize_with(block.panels.len().max(eight.len()), EightBits::default);
        let missing = eight.iter_mut().zip(block.panels).skip(*num_eight);
        missing.for_each(|(eight, panel)| eight.take(panel, kernel));
        *num_eight = block.panels.len();
    }
    let width = block.panels.len() * PANEL;
    scores.resize(group.users.len() * width, 0.0);
    filter::score_panels(kernel, precision, &group.tile, block.panels, eight, scores);
    excluded.mark(scores, width);
    doubts.clear();
    let num_items = block.items.rows();
    let max_doubts = Trust::max_doubts(precision, block.items.dim(), group.users.len() * num_items);
    for (at, (state, scores)) in states.iter().zip(scores.chunks(width)).enumerate() {
        let bound = group.tile.error_bound(at, precision);
        let slope = bound.slope(block.loss[precision as usize]);
        let scores = &scores[..num_items];
        let row = Row { scores, norms: &block.norms, bound, slope };
        bars.clear();
        fold.bars(state, group.users.start + at, &row, bars);
        for (bar, (low, high)) in bars.iter().enumerate() {
            places.clear();
            let thresholds = bound.thresholds(*low, *high, slope);
            let above = filter::sift(kernel, scores, &block.norms, thresholds, places);
            if !excluded.of(at).is_empty() {
                // An excluded one is in doubt where all are that score little.
                places.retain(|place| scores[*place as usize] > EXCLUDED || !excluded.contains(at, *place));
            }
            doubts.pairs.extend(places.iter().map(|place| (at, *place as usize)));
            doubts.rows.push((at, bar, above, doubts.pairs.len()));
        }
        if doubts.pairs.len() > max_doubts {
            return false;
        }
    }
    true
}

/// Cuts a range into ranges of `size`, the last one shorter.
fn split(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}
