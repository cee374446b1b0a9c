//! Errors planted in what surrounds the core. The checker must catch each: a checker that finds nothing proves nothing.

/// A planted error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// The engine carries out actions whose writes become durable only some batches later.
    ActsBeforeItWrites,
    /// One end takes its chunks one octet further on.
    ShiftsExtents,
    /// The follower's report names blocks that it does not hold.
    VotesForBlocksItLacks,
    /// The leader takes entries for applied that are not.
    DoesNotWaitForTheFollower,
    /// The engine acknowledges blocks when it has read them.
    AcknowledgesOnReading,
    /// A restored ledger passes for the present one.
    CellIsNotRead,
    /// A fresh ledger does not burn what the card had announced.
    NewestIsNotRead,
    /// Close is answered before push has stopped.
    AnswersCloseAtOnce,
}

impl Defect {
    pub(crate) const ALL: [Self; 8] = [
        Self::ActsBeforeItWrites,
        Self::ShiftsExtents,
        Self::VotesForBlocksItLacks,
        Self::DoesNotWaitForTheFollower,
        Self::AcknowledgesOnReading,
        Self::CellIsNotRead,
        Self::NewestIsNotRead,
        Self::AnswersCloseAtOnce,
    ];
}
