//! The text form of a record: key, tab, value, newline, with `\t`, `\n` and `\\` for those bytes within.
//! All other bytes stand for themselves.

/// Adds a record to `line`.
pub(crate) fn write_record(line: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    write_field(line, key);
    line.push(b'\t');
    write_field(line, value);
    line.push(b'\n');
}

fn write_field(line: &mut Vec<u8>, field: &[u8]) {
    for byte in field {
        match byte {
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\\' => line.extend_from_slice(b"\\\\"),
            byte => line.push(*byte),
        }
    }
}

/// Key and value of a line without its newline.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read_record(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let tab = line.iter().position(|byte| *byte == b'\t').ok_or("no tab between key and value")?;
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    if value.contains(&b'\t') {
        return Err("a second tab: write \\t for a tab within a key or a value".to_owned());
    }
    Ok((read_field(key)?, read_field(value)?))
}

fn read_field(field: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(b't') => bytes.push(b'\t'),
                Some(b'n') => bytes.push(b'\n'),
                Some(b'\\') => bytes.push(b'\\'),
                Some(other) => {
                    let other = char::from(*other);
                    return Err(format!("\\{other} means nothing: write \\t, \\n, or \\\\ for a backslash"));
                }
                None => return Err("a backslash at the end: write \\\\".to_owned()),
            },
            byte => bytes.push(*byte),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{read_record, write_record};

    #[test]
    fn tabs_newlines_and_backslashes_are_escaped() {
        let mut line = Vec::new();
        write_record(&mut line, b"a\tb", b"c\nd\\n");
        assert_eq!(line, b"a\\tb\tc\\nd\\\\n\n");
    }

    #[test]
    fn what_is_no_record_is_told() {
        for (line, why) in [
            (&b"key"[..], "no tab"),
            (b"key\ta\tb", "second tab"),
            (b"key\t\\x", "\\x means nothing"),
            (b"key\tvalue\\", "at the end"),
        ] {
            assert!(read_record(line).unwrap_err().contains(why));
        }
        assert_eq!(read_record(b"key\t"), Ok((b"key".to_vec(), Vec::new())));
    }

    proptest! {
        #[test]
        fn every_record_comes_back(key in any::<Vec<u8>>(), value in any::<Vec<u8>>()) {
            let mut line = Vec::new();
            write_record(&mut line, &key, &value);
            let body = line.strip_suffix(b"\n").unwrap();
            prop_assert!(!body.contains(&b'\n'));
            prop_assert_eq!(read_record(body), Ok((key, value)));
        }
    }
}
