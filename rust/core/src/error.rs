//! The errors of the core. They name the row that is wrong.

/// The result of every fallible function of the core.
pub type Result<T> = std::result::Result<T, Error>;

/// What was passed, why it cannot work, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A matrix without rows or without columns where at least one is needed.
    #[error("{name} has shape ({rows}, {columns}): at least one row and one column are needed")]
    Empty {
        /// The argument.
        name: &'static str,
        /// Its number of rows.
        rows: usize,
        /// Its number of columns.
        columns: usize,
    },
    /// User and item vectors of different lengths.
    #[error(
        "user_embeddings have {users} dimensions and item_embeddings {items}: encode both with the same model and \
         truncate both to the same dimension"
    )]
    Dimensions {
        /// Dimensions of a user vector.
        users: usize,
        /// Dimensions of an item vector.
        items: usize,
    },
    /// NaN or infinity in an embedding.
    #[error("{name} row {row}, column {column} is {value}: every value must be finite; check what encoded this row")]
    NonFinite {
        /// The argument.
        name: &'static str,
        /// The first row that holds such a value.
        row: usize,
        /// Its first such column.
        column: usize,
        /// The value.
        value: f32,
    },
    /// A dot product that could leave the range of f32.
    #[error(
        "user_embeddings row {row} has norm {norm:.1e}, and with an item of norm {item_norm:.1e} a score could overflow \
         float32: normalise the embeddings"
    )]
    Overflow {
        /// The first such row.
        row: usize,
        /// Its norm.
        norm: f64,
        /// The largest norm of an item.
        item_norm: f64,
    },
    /// A kernel that does not exist, or that this CPU cannot run.
    #[error("LANGPTUNE_KERNEL = {asked:?}: this CPU runs {supported}; unset the variable to use the first of them")]
    Kernel {
        /// What the variable holds.
        asked: String,
        /// The names of the kernels this CPU runs.
        supported: String,
    },
    /// Work that ended because the caller asked for it.
    #[error("interrupted")]
    Interrupted,
    /// Ragged input with a different number of rows than there are users.
    #[error("{name} has {rows} rows for {users} users: pass one row for each user")]
    Rows {
        /// The argument.
        name: &'static str,
        /// Its number of rows.
        rows: usize,
        /// The number of users.
        users: usize,
    },
    /// Offsets that do not describe rows of the values.
    #[error(
        "{name} offsets {problem}: they must start at 0, never decrease, and end at the number of values ({values})"
    )]
    Offsets {
        /// The argument.
        name: &'static str,
        /// What is wrong with them.
        problem: String,
        /// The number of values.
        values: usize,
    },
    /// An item index outside the catalog.
    #[error("{name} row {row} holds item {item}: item indexes run from {first} to {last}")]
    OutOfRange {
        /// The argument.
        name: &'static str,
        /// The first such row.
        row: usize,
        /// The item index as it was passed.
        item: i64,
        /// The first valid item index.
        first: usize,
        /// The last valid item index.
        last: usize,
    },
    /// The same target twice for one user.
    #[error("targets row {row} holds item {item} twice: pass each relevant item once")]
    DuplicateTarget {
        /// The first such row.
        row: usize,
        /// The item.
        item: usize,
    },
    /// A target that is also excluded.
    #[error(
        "targets row {row} holds item {item}, which exclude row {row} takes out of the ranking: remove it from one of \
         the two"
    )]
    ExcludedTarget {
        /// The first such row.
        row: usize,
        /// The item.
        item: usize,
    },
    /// A number of scores that differs from the number of targets.
    #[error("scores holds {scores} values for {targets} targets: pass one for each, as `score` returns them")]
    PerTarget {
        /// The number of scores.
        scores: usize,
        /// The number of targets.
        targets: usize,
    },
    /// A target without a score.
    #[error(
        "scores row {row} is {score} for item {item}: pass the score that the shard which holds this item gives it"
    )]
    Unscored {
        /// The first such row.
        row: usize,
        /// The target.
        item: usize,
        /// The value in place of its score.
        score: f32,
    },
    /// A score that differs from the score of this index.
    #[error(
        "scores row {row} is {score} for item {item}, which scores {own} here: pass what `score` returns for the same \
         users and targets"
    )]
    OtherScore {
        /// The first such row.
        row: usize,
        /// The target.
        item: usize,
        /// The score as it was passed.
        score: f32,
        /// The score of the index.
        own: f32,
    },
    /// The same item found in two shards.
    #[error(
        "row {row} of what was found holds item {item} twice: every item is in one shard; give each its first item"
    )]
    FoundTwice {
        /// The first such row.
        row: usize,
        /// The item.
        item: usize,
    },
    /// Fewer items than asked for.
    #[error("k = {k}, but row {row} has only {left} items left to rank: pass k <= {left} or exclude fewer items")]
    TooFewItems {
        /// The first such row.
        row: usize,
        /// The number of items not excluded.
        left: usize,
        /// The number of items asked for.
        k: usize,
    },
    /// k = 0.
    #[error("k = 0 asks for nothing: pass k >= 1")]
    ZeroK,
    /// A user without ranks.
    #[error("ranks row {row} is empty: a user without a relevant item has no score; leave such users out")]
    NoRanks {
        /// The first such row.
        row: usize,
    },
    /// A rank that is below 1 or not finite.
    #[error("ranks row {row} holds {rank}: ranks start at 1 and are finite")]
    BadRank {
        /// The first such row.
        row: usize,
        /// The rank as it was passed.
        rank: f64,
    },
    /// A sample with NaN or infinity.
    #[error("{name} row {row} is {value}: every score must be finite")]
    NonFiniteScore {
        /// The argument.
        name: &'static str,
        /// The first such row.
        row: usize,
        /// The value.
        value: f64,
    },
    /// Paired samples of different length.
    #[error("a paired test needs the same users on both sides: a has {a} scores and b has {b}")]
    Unpaired {
        /// Number of scores of the first.
        a: usize,
        /// Number of scores of the second.
        b: usize,
    },
    /// A sample without a value.
    #[error("{name} is empty: at least one user is needed")]
    NoScores {
        /// The argument.
        name: &'static str,
    },
    /// Resampled means that all lie on one side of the mean, so that BCa cannot estimate its bias.
    #[error(
        "all {num_resamples} resampled means lie on one side of the mean, so that BCa knows no bias: raise num_resamples \
         or use method=\"percentile\""
    )]
    OneSided {
        /// The number of resamples.
        num_resamples: usize,
    },
    /// Paired scores whose difference is the same for every user.
    #[error(
        "a - b is {difference} for each of the {users} users, so that a t-test knows no variance: use the permutation \
         test"
    )]
    EqualDifferences {
        /// The number of users.
        users: usize,
        /// The difference of each user.
        difference: f64,
    },
    /// A parameter outside its range.
    #[error("{name} = {value}: {range}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// A sequence of negative length.
    #[error("lengths[{index}] is {length}: a sequence has 0 or more tokens")]
    NegativeLength {
        /// The first such sequence.
        index: usize,
        /// Its length as it was passed.
        length: i64,
    },
    /// A sequence that fits no bin.
    #[error(
        "lengths[{index}] is {length} tokens, more than the capacity of {capacity}: shorten this sequence, raise the \
         capacity or ask for a split; nothing is cut silently"
    )]
    TooLong {
        /// The first such sequence.
        index: usize,
        /// Its length.
        length: usize,
        /// The capacity of a bin.
        capacity: usize,
    },
    /// Sequences that stay together but fit no bin.
    #[error(
        "the {sequences} sequences that stay together with lengths[{first}] are {length} tokens, more than the \
         capacity of {capacity}: shorten them, raise the capacity or let fewer stay together"
    )]
    GroupTooLong {
        /// The first of the sequences.
        first: usize,
        /// Their number.
        sequences: usize,
        /// Their total length.
        length: usize,
        /// The capacity of a bin.
        capacity: usize,
    },
    /// More pieces of sequences than memory holds.
    #[error("{pieces} pieces of {capacity} tokens do not fit in memory: raise the capacity")]
    TooManyPieces {
        /// The number of pieces.
        pieces: usize,
        /// The capacity of a bin.
        capacity: usize,
    },
    /// A number of values that differs from the number of sequences.
    #[error("{name} holds {values} values for {sequences} sequences: pass one for each")]
    PerSequence {
        /// The argument.
        name: &'static str,
        /// Its number of values.
        values: usize,
        /// The number of sequences.
        sequences: usize,
    },
    /// A sequence that continues a sequence it cannot continue.
    #[error("prefixes[{index}] is {prefix}, {problem}: pass the index of an earlier sequence that has none, or -1")]
    Prefix {
        /// The first such sequence.
        index: usize,
        /// The index of the prefix as it was passed.
        prefix: i64,
        /// Why it cannot be continued.
        problem: &'static str,
    },
    /// A cost that is NaN, infinite or negative.
    #[error("costs[{index}] is {cost}: a cost is finite and at least 0")]
    Cost {
        /// The first such sequence.
        index: usize,
        /// Its cost as it was passed.
        cost: f64,
    },
    /// Too few sequences and groups to give every rank the same number of bins.
    #[error(
        "{bins} bins over {ranks} ranks are {needed} bins of at least one sequence or group, and there are only {units} \
         of these: pass more sequences or fewer ranks"
    )]
    TooFewForRanks {
        /// The number of bins.
        bins: usize,
        /// The number of ranks.
        ranks: usize,
        /// The number of bins rounded up to a multiple of the ranks.
        needed: usize,
        /// The number of sequences and groups.
        units: usize,
    },
    /// A number of flat tokens that differs from the sum of the lengths.
    #[error("tokens holds {tokens} tokens and the lengths sum to {total}: pass those of all sequences, in their order")]
    Tokens {
        /// The number of tokens.
        tokens: usize,
        /// The sum of the lengths.
        total: usize,
    },
    /// A bin with too many tokens for int32 offsets.
    #[error("bin {bin} holds {length} tokens, and cu_seqlens are int32: pack with a capacity below 2**31")]
    BinTooLong {
        /// The first such bin.
        bin: usize,
        /// Its number of tokens.
        length: usize,
    },
}
