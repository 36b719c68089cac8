//! Bugs, planted around the calls of the product's functions: either the arguments are changed before
//! the call, or the results after it. The search has to find each bug.
//!
//! Left out on purpose: bugs that the product's own unit tests state one by one.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rows are taken wherever the cursor is.
    InstallIgnoresTheCursor,
    /// A receiver that awaits the shard by a later move takes rows of an earlier one.
    InstallAcceptedForAnotherMove,
    /// Rows that come late are written over those that are served.
    InstallAcceptedByAServingShard,
    /// The receiver does not compare its cursor with the end.
    ActivateDoesNotCompare,
    /// A receiver that awaits the shard by a later move serves it.
    ActivateAcceptedForAnotherMove,
    /// After a mismatch the rows are dropped, but not the cursor.
    WipeKeepsTheCursor,
    /// Nobody deletes a cursor, nor is an empty one made.
    CursorSurvivesTheLife,
    /// A group serves what is assigned to it, wherever the rows are.
    AbsentServesWheneverMine,
    /// Adopt forgets a shard that nobody owns.
    ParkedCountsAsAbsent,
    /// `last_owner` is the owner in the configuration before, which may be nobody.
    LastOwnerForgottenWhileOwnerIsNone,
    /// A group adopts whatever configuration it hears of, if it is a newer one.
    AdoptSkipsConfigs,
    /// A group adopts nothing while a shard is on its way.
    AdoptWaits,
    /// A shard is still awaited that is assigned to another group by now.
    AwaitingSurvivesItsLoss,
    /// A shard whose assignment was lost counts as taken.
    LostAssignmentCountsAsTaken,
    /// A shard that leaves is forgotten when another group is to have it.
    LeavingDroppedWhenRetargeted,
    /// A shard that leaves for another group than before leaves by the old move.
    RetargetKeepsTheNumber,
    /// A sealed shard that returns stays one that returns, whatever is adopted later.
    NextIsNeverTakenBack,
    /// What becomes of a sealed shard is what the first configuration wanted.
    NextKeepsTheFirst,
    /// A group that will await a shard again refuses it until then.
    NextSaysRefused,
    /// A shard that leaves is sealed by another move.
    SealForAnotherMove,
    /// A shard is sealed although its new owner did not say that it awaits it.
    SealWithoutAnAnswer,
    /// The mover releases what it has sent.
    ReleaseBeforeTheAcknowledgement,
    /// The mover releases when the receiver's cursor is at the end of its rows.
    ReleaseOnTheAnswerToTheLastInstall,
    /// A Release that was late in the log drops a shard that is handed over by another move.
    ReleaseForAnotherMove,
    /// With the rows a group forgets by which move it took them.
    TakenDroppedWithTheRows,
    /// The mover takes a shard back that it was not refused: after a time, say.
    ReopenWithoutARefused,
    /// A Reopen that was late in the log takes a shard back that is handed over by another move.
    ReopenForAnotherMove,
    /// The mover asks all groups, and takes the shard back if any refuses it.
    RefusedByAnotherGroupReopens,
    /// "Done" does not say of which move.
    DoneDoesNotNameTheMove,
    /// "Refused" does not say of which move.
    RefusedDoesNotNameTheMove,
    /// "Done" is what a group says that has not come to the configuration.
    BehindSaysDone,
    /// "Refused" is what a group says that has not come to the configuration.
    BehindSaysRefused,
    /// "Done" is what every group says that is past the configuration.
    PastSaysDone,
    /// "Done" is said of no move but the newest one.
    TakenComparedByEquality,
    /// "Refused" is what a group says that serves the shard.
    ServingSaysRefused,
    /// "Done" is what a group says that awaits the shard by a later move.
    NewerAwaitingSaysDone,
    /// A receiver that is past the push says nothing.
    NoAnswerOnceSettled,
    /// A receiver that is past the push says nothing while it moves the shard again.
    DoneAnsweredOnlyWhileTheShardIsSettled,
    /// A shard takes writes while it is handed over.
    WritesServedWhileHanding,
    /// The mover reads the rows before the state that permits sending them.
    RowsReadBeforeTheFreeze,
    /// The mover pushes what is sealed to the owner in the newest configuration.
    PushesToTheNewestOwner,
    /// A group that lost its rows comes back under its id.
    WipedGroupReturnsUnderItsId,
    /// "Done" is what a group says that has the shard, by whatever move.
    LeavingOrParkedSaysDone,
    /// A group adopts what follows another history than its own.
    AdoptIgnoresTheDigest,
    /// A receiver takes and acknowledges pushes of a sender that follows another history.
    PushIgnoresTheDigest,
}

impl Bug {
    /// All that the search finds. The last three are found when its groups are compared with the product's. Two need
    /// another history of configurations. One harms nobody: who has the rows of a shard and did not take them by
    /// that move or a later one knows that nobody else has them to release.
    pub const ALL: [Self; 42] = [
        Self::InstallIgnoresTheCursor,
        Self::InstallAcceptedForAnotherMove,
        Self::InstallAcceptedByAServingShard,
        Self::ActivateDoesNotCompare,
        Self::ActivateAcceptedForAnotherMove,
        Self::WipeKeepsTheCursor,
        Self::CursorSurvivesTheLife,
        Self::AbsentServesWheneverMine,
        Self::ParkedCountsAsAbsent,
        Self::LastOwnerForgottenWhileOwnerIsNone,
        Self::AdoptSkipsConfigs,
        Self::AdoptWaits,
        Self::AwaitingSurvivesItsLoss,
        Self::LostAssignmentCountsAsTaken,
        Self::LeavingDroppedWhenRetargeted,
        Self::RetargetKeepsTheNumber,
        Self::NextIsNeverTakenBack,
        Self::NextKeepsTheFirst,
        Self::NextSaysRefused,
        Self::SealForAnotherMove,
        Self::SealWithoutAnAnswer,
        Self::ReleaseBeforeTheAcknowledgement,
        Self::ReleaseOnTheAnswerToTheLastInstall,
        Self::ReleaseForAnotherMove,
        Self::TakenDroppedWithTheRows,
        Self::ReopenWithoutARefused,
        Self::ReopenForAnotherMove,
        Self::RefusedByAnotherGroupReopens,
        Self::DoneDoesNotNameTheMove,
        Self::RefusedDoesNotNameTheMove,
        Self::BehindSaysDone,
        Self::BehindSaysRefused,
        Self::PastSaysDone,
        Self::TakenComparedByEquality,
        Self::ServingSaysRefused,
        Self::NewerAwaitingSaysDone,
        Self::NoAnswerOnceSettled,
        Self::DoneAnsweredOnlyWhileTheShardIsSettled,
        Self::WritesServedWhileHanding,
        Self::RowsReadBeforeTheFreeze,
        Self::PushesToTheNewestOwner,
        Self::WipedGroupReturnsUnderItsId,
    ];
}
