//! Bugs, planted around the calls of the product's functions: what they are told is bent before the call,
//! or what they say is bent behind it. The search has to find each.
//!
//! Left out on purpose: bugs that the product's own unit tests state one by one.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rows are taken wherever the cursor is.
    InstallIgnoresTheCursor,
    /// A receiver that awaits the shard in a later configuration takes rows of an earlier one.
    InstallAcceptedForAnotherConfig,
    /// Rows that come late are written over those that are served.
    InstallAcceptedByAServingShard,
    /// The receiver does not compare its cursor with the end.
    ActivateDoesNotCompare,
    /// A receiver that awaits the shard in a later configuration serves it.
    ActivateAcceptedForAnotherConfig,
    /// After a mismatch the rows are dropped, but not the cursor.
    WipeKeepsTheCursor,
    /// Activate does not delete the cursor, nor does Adopt create an empty one.
    CursorSurvivesTheLife,
    /// A group serves what is assigned to it, wherever the rows are.
    AbsentServesWheneverMine,
    /// Adopt forgets a shard that nobody owns.
    ParkedCountsAsAbsent,
    /// `last_owner` is the owner in the configuration before, which may be nobody.
    LastOwnerForgottenWhileOwnerIsNone,
    /// A group goes on while it still hands a shard over.
    AdoptWhileHanding,
    /// A group goes on while it still awaits a shard.
    AdoptWhileAwaiting,
    /// A group adopts whatever configuration it hears of, if it is a newer one.
    AdoptSkipsConfigs,
    /// The mover releases what it has sent.
    ReleaseBeforeTheAcknowledgement,
    /// The mover releases when the receiver's cursor is at the end of its rows.
    ReleaseOnTheAnswerToTheLastInstall,
    /// A Release that was late in the log drops the shard in a later configuration.
    ReleaseForAnotherConfig,
    /// "Already done" does not say of which configuration.
    DoneDoesNotNameTheConfig,
    /// "Already done" is what a group says that has not come to the configuration.
    DoneAnsweredByAReceiverThatIsBehind,
    /// A receiver that is past the push says nothing.
    NoAnswerOnceSettled,
    /// A receiver that is past the push says nothing while it moves the shard again.
    DoneAnsweredOnlyWhileTheShardIsSettled,
    /// A shard takes writes while it is handed over.
    WritesServedWhileHanding,
    /// The mover reads the rows before the state that permits sending them.
    RowsReadBeforeTheFreeze,
    /// The answer that names the cursor does not say of which configuration.
    CursorDoesNotNameTheConfig,
    /// The mover pushes to the owner in the newest configuration.
    PushesToTheNewestOwner,
    /// A group that lost its rows comes back under its id.
    WipedGroupReturnsUnderItsId,
    /// A group adopts what follows another history than its own.
    AdoptIgnoresTheDigest,
    /// A receiver takes and acknowledges pushes of a sender that follows another history.
    PushIgnoresTheDigest,
}

impl Bug {
    /// All that the search finds. It knows one history of configurations; the last two are found when its groups
    /// are compared with the product's, which are shown another one.
    pub const ALL: [Self; 25] = [
        Self::InstallIgnoresTheCursor,
        Self::InstallAcceptedForAnotherConfig,
        Self::InstallAcceptedByAServingShard,
        Self::ActivateDoesNotCompare,
        Self::ActivateAcceptedForAnotherConfig,
        Self::WipeKeepsTheCursor,
        Self::CursorSurvivesTheLife,
        Self::AbsentServesWheneverMine,
        Self::ParkedCountsAsAbsent,
        Self::LastOwnerForgottenWhileOwnerIsNone,
        Self::AdoptWhileHanding,
        Self::AdoptWhileAwaiting,
        Self::AdoptSkipsConfigs,
        Self::ReleaseBeforeTheAcknowledgement,
        Self::ReleaseOnTheAnswerToTheLastInstall,
        Self::ReleaseForAnotherConfig,
        Self::DoneDoesNotNameTheConfig,
        Self::DoneAnsweredByAReceiverThatIsBehind,
        Self::NoAnswerOnceSettled,
        Self::DoneAnsweredOnlyWhileTheShardIsSettled,
        Self::WritesServedWhileHanding,
        Self::RowsReadBeforeTheFreeze,
        Self::CursorDoesNotNameTheConfig,
        Self::PushesToTheNewestOwner,
        Self::WipedGroupReturnsUnderItsId,
    ];
}
