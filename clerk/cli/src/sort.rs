//! Sorting records that may not fit memory: sorted runs in temporary files, merged at the end.
//!
//! The store keeps rows in the order (slot, key), so a shard's stream is not sorted by key, and a cluster
//! holds more than this process may.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// Bytes of records in memory before a run is written out.
const RUN_BYTES: usize = 64 << 20;
const BUFFER_BYTES: usize = 1 << 18;

/// A record: key, value, version.
pub(crate) type Record = (Vec<u8>, Vec<u8>, u64);

/// Takes records in any order.
pub(crate) struct Sorter {
    run_bytes: usize,
    bytes: usize,
    records: Vec<Record>,
    runs: Vec<File>,
}

impl Sorter {
    pub(crate) fn new() -> Self {
        Self { run_bytes: RUN_BYTES, bytes: 0, records: Vec::new(), runs: Vec::new() }
    }

    pub(crate) fn add(&mut self, record: Record) -> io::Result<()> {
        self.bytes += record.0.len() + record.1.len() + size_of::<Record>();
        self.records.push(record);
        if self.bytes >= self.run_bytes {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.records.sort_unstable();
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile()?);
        for (key, value, version) in self.records.drain(..) {
            let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(io::Error::other);
            writer.write_all(&length(&key)?.to_le_bytes())?;
            writer.write_all(&length(&value)?.to_le_bytes())?;
            writer.write_all(&version.to_le_bytes())?;
            writer.write_all(&key)?;
            writer.write_all(&value)?;
        }
        let mut file = writer.into_inner().map_err(|error| error.into_error())?;
        file.rewind()?;
        self.runs.push(file);
        self.bytes = 0;
        Ok(())
    }

    /// Hands every record to `each`, ascending.
    pub(crate) fn finish(mut self, mut each: impl FnMut(Record) -> io::Result<()>) -> io::Result<()> {
        self.records.sort_unstable();
        let mut runs: Vec<Run> = self.runs.into_iter().map(Run::of).collect();
        let mut rest = self.records.into_iter();
        let last = runs.len();
        let mut next = |run: usize| if run == last { Ok(rest.next()) } else { runs[run].next() };
        let mut heads = BinaryHeap::new();
        for run in 0..=last {
            heads.extend(next(run)?.map(|record| Reverse((record, run))));
        }
        while let Some(Reverse((record, run))) = heads.pop() {
            heads.extend(next(run)?.map(|record| Reverse((record, run))));
            each(record)?;
        }
        Ok(())
    }
}

struct Run(BufReader<File>);

impl Run {
    fn of(file: File) -> Self {
        Self(BufReader::with_capacity(BUFFER_BYTES, file))
    }

    fn next(&mut self) -> io::Result<Option<Record>> {
        let mut head = [0; 16];
        match self.0.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let number = |range: std::ops::Range<usize>| {
            head[range].iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        let mut key = vec![0; number(0..4) as usize];
        let mut value = vec![0; number(4..8) as usize];
        self.0.read_exact(&mut key)?;
        self.0.read_exact(&mut value)?;
        Ok(Some((key, value, number(8..16))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Sorter;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_come_out_sorted_however_many_runs_they_make(
            records in prop::collection::vec(any::<(Vec<u8>, Vec<u8>, u64)>(), 0..60),
            run_bytes in 1..4000_usize,
        ) {
            let mut sorter = Sorter { run_bytes, ..Sorter::new() };
            for record in &records {
                sorter.add(record.clone()).unwrap();
            }
            let mut sorted = Vec::new();
            sorter.finish(|record| {
                sorted.push(record);
                Ok(())
            }).unwrap();
            let mut expected = records;
            expected.sort();
            prop_assert_eq!(sorted, expected);
        }
    }
}
