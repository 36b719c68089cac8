//! Checks the controllers' complete table offline (correctness rule 72): every row is of a known
//! kind, and there are configurations without a gap up to the newest.
//!
//! Left out on purpose: whether the configurations are sensible. The controllers made them once, by
//! rules that may have changed since.

use raft::storage::JudgeRows;

/// Judges the rows of a table.
#[derive(Debug, Default)]
pub struct Table {
    newest: Option<u64>,
    /// The number of the last configuration read.
    last: Option<u64>,
}

impl JudgeRows for Table {
    fn row(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            [0x01] => {
                let newest = base::codec::decode(value, value.len()).map_err(|error| error.to_string())?;
                self.newest = Some(newest);
                Ok(())
            }
            [0x04, num @ ..] => {
                let num: [u8; 8] =
                    num.try_into().map_err(|_| "a configuration's number of another length".to_owned())?;
                let num = u64::from_be_bytes(num);
                match self.last.replace(num) {
                    Some(last) if last + 1 != num => {
                        Err(format!("configuration {num} comes after {last}: those between are missing"))
                    }
                    _ => Ok(()),
                }
            }
            [0x02 | 0x03 | 0x05 | 0x06 | 0x07, ..] => Ok(()),
            _ => Err("its key is of no kind that this build knows".to_owned()),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        if self.newest == self.last {
            Ok(())
        } else {
            let shown = |num: Option<u64>| num.map_or("none".to_owned(), |num| num.to_string());
            let (newest, last) = (shown(self.newest), shown(self.last));
            Err(format!("the newest configuration should be {newest}, and is {last}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use raft::storage::JudgeRows;

    use super::Table;

    fn judged(newest: u64, configs: &[u64]) -> Result<(), String> {
        let mut judge = Table::default();
        judge.row(&[0x01], &base::codec::encode(&newest))?;
        for num in configs {
            judge.row(&[&[0x04], &num.to_be_bytes()[..]].concat(), b"")?;
        }
        judge.end()
    }

    #[test]
    fn a_configuration_that_is_missing_is_told() {
        assert_eq!(judged(2, &[0, 1, 2]), Ok(()));
        assert!(judged(2, &[0, 2]).unwrap_err().contains("2 comes after 0"));
        assert!(judged(2, &[0, 1]).unwrap_err().contains("should be 2, and is 1"));
        assert!(Table::default().row(b"\x77", b"").is_err());
    }
}
