//! Commands that wait for their turn while a pace holds (correctness rule 133).
//!
//! They wait in one line, bounded in bytes and in what the pace lets through in a second: a caller
//! that had to wait longer would ask again. Everything that frees space, and every read, passes
//! beside it. A caller that gave up is skipped: nothing was done for it.

use std::collections::VecDeque;

use bytes::Bytes;

/// What a waiting command takes in memory beside its bytes.
const BESIDE_BYTES: usize = 256;

/// The line.
pub(super) struct Held<P> {
    line: VecDeque<(Bytes, P)>,
    bytes: usize,
    bytes_max: usize,
}

impl<P> Held<P> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { line: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Bytes of those who wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// At the end of the line.
    ///
    /// # Errors
    /// The line is full. (It takes one command of any size.)
    pub(super) fn push(&mut self, command: Bytes, waiter: P, a_second: u64) -> Result<(), P> {
        let bytes = command.len() + BESIDE_BYTES;
        let bytes_max = self.bytes_max.min(usize::try_from(a_second).unwrap_or(usize::MAX));
        if !self.line.is_empty() && self.bytes + bytes > bytes_max {
            return Err(waiter);
        }
        self.bytes += bytes;
        self.line.push_back((command, waiter));
        Ok(())
    }

    /// The first whose caller still waits.
    pub(super) fn pop(&mut self, is_gone: impl Fn(&P) -> bool) -> Option<(Bytes, P)> {
        while let Some((command, waiter)) = self.line.pop_front() {
            self.bytes -= command.len() + BESIDE_BYTES;
            if !is_gone(&waiter) {
                return Some((command, waiter));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{BESIDE_BYTES, Held};

    #[test]
    fn those_who_wait_are_served_in_their_order_within_a_bound_and_only_if_they_still_wait() {
        let mut held = Held::new(3 * (BESIDE_BYTES + 100));
        let taken =
            (1..=5).filter(|number| held.push(Bytes::from(vec![0; 100]), *number, u64::MAX).is_ok()).count();
        assert_eq!(taken, 3);
        let pop = |held: &mut Held<u32>| held.pop(|number| *number == 2).map(|(_, number)| number);
        assert_eq!([pop(&mut held), pop(&mut held), pop(&mut held)], [Some(1), Some(3), None]);
        assert!(held.is_empty() && held.bytes == 0);
        assert!(held.push(Bytes::from(vec![0; 10_000]), 6, 1000).is_ok(), "one of any size");
        assert!(held.push(Bytes::new(), 7, u64::MAX).is_err());
        assert_eq!(pop(&mut held), Some(6));
        let taken =
            (1..=5).filter(|number| held.push(Bytes::new(), *number, 2 * BESIDE_BYTES as u64).is_ok());
        assert_eq!(taken.count(), 2, "what the pace lets through in a second");
    }
}
