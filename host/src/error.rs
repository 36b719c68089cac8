//! Why a server does not start.

/// Why a server does not start: one line that says what to do.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;
