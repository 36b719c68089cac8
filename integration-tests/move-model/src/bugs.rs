//! Bugs, planted around the calls of the product's functions: their input is changed before the
//! call, or their result after it. The search has to find each bug.
//!
//! Left out on purpose: bugs that the product's own unit tests cover one by one.

/// A planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rows are accepted wherever the cursor is.
    InstallIgnoresTheCursor,
    /// A receiver that awaits the shard in a later configuration accepts rows of an earlier one.
    InstallAcceptedForAnotherConfig,
    /// Late rows overwrite rows that are served.
    InstallAcceptedByAServingShard,
    /// The receiver does not compare its cursor with the end.
    ActivateDoesNotCompare,
    /// A receiver that awaits the shard in a later configuration serves it.
    ActivateAcceptedForAnotherConfig,
    /// After a mismatch the rows are dropped, but not the cursor.
    WipeKeepsTheCursor,
    /// Activate does not delete the cursor, and Adopt does not create an empty one.
    CursorSurvivesTheLife,
    /// A group serves what is assigned to it, wherever the rows are.
    AbsentServesWheneverMine,
    /// Adopt forgets a shard that nobody owns.
    ParkedCountsAsAbsent,
    /// `last_owner` is the owner in the previous configuration, which may be nobody.
    LastOwnerForgottenWhileOwnerIsNone,
    /// A group adopts the next configuration while it still hands a shard over.
    AdoptWhileHanding,
    /// A group adopts the next configuration while it still awaits a shard.
    AdoptWhileAwaiting,
    /// A group adopts any newer configuration that it hears of.
    AdoptSkipsConfigs,
    /// The mover releases rows after it has sent them.
    ReleaseBeforeTheAcknowledgement,
    /// The mover releases when the receiver's cursor is at the end of its rows.
    ReleaseOnTheAnswerToTheLastInstall,
    /// A Release that reached the log late drops the shard in a later configuration.
    ReleaseForAnotherConfig,
    /// "Already done" does not say for which configuration.
    DoneDoesNotNameTheConfig,
    /// A group that has not reached the configuration answers "already done".
    DoneAnsweredByAReceiverThatIsBehind,
    /// A receiver that is past the push does not answer.
    NoAnswerOnceSettled,
    /// A receiver that is past the push does not answer while it moves the shard again.
    DoneAnsweredOnlyWhileTheShardIsSettled,
    /// A shard takes writes while it is handed over.
    WritesServedWhileHanding,
    /// The mover reads the rows before the state that permits sending them.
    RowsReadBeforeTheFreeze,
    /// The answer with the cursor does not say for which configuration.
    CursorDoesNotNameTheConfig,
    /// The mover pushes to the owner in the newest configuration.
    PushesToTheNewestOwner,
    /// A group that lost its rows comes back under its id.
    WipedGroupReturnsUnderItsId,
    /// A group adopts a configuration that follows another history than its own.
    AdoptIgnoresTheDigest,
    /// A receiver accepts and acknowledges pushes of a sender that follows another history.
    PushIgnoresTheDigest,
}

impl Bug {
    /// All bugs that the search finds. It knows one history of configurations. The last two are
    /// found when its groups are compared with the product's, which are shown another history.
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
