//! What is a whole file of records, and what is not.

use super::{Writer, each_record};

/// The records that are handed on, and what the end says: nothing, `missing: ...`, or the failure's code and words.
fn read(text: &[u8], partial: bool) -> (Vec<String>, String) {
    let mut records = Vec::new();
    let result = each_record(Box::new(std::io::Cursor::new(text.to_vec())), partial, |record| {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        records.push(format!(
            "{} {}={} {}",
            record.line,
            text(&record.key),
            text(&record.value),
            record.bytes
        ));
        true
    });
    let end = match result {
        Ok(None) => String::new(),
        Ok(Some(missing)) => format!("missing: {missing}"),
        Err(failure) => format!("{}: {}", failure.code, failure.message),
    };
    (records, end)
}

fn dump(records: &[(&str, &str)]) -> String {
    let mut writer = Writer::default();
    let mut text = Writer::header();
    for (key, value) in records {
        let mut line = Vec::new();
        writer.record(&mut line, key.as_bytes(), value.as_bytes());
        text += std::str::from_utf8(&line).unwrap();
    }
    text + &writer.trailer()
}

fn whole() -> String {
    dump(&[("a", "1"), ("b", "two\tparts\n"), ("# c", "")])
}

#[test]
fn plain_records_need_no_first_and_no_last_line() {
    assert_eq!(read(b"a\t1\nb\t2\n", false), (vec!["1 a=1 4".into(), "2 b=2 4".into()], String::new()));
    assert_eq!(read(b"a\t1\r\n", false).0, ["1 a=1\r 5"]);
    assert_eq!(read(b"", false), (Vec::new(), String::new()));
    assert_eq!(read(b"# a\t1\n", false).0, ["1 # a=1 6"], "a key may begin like a dump's first line");
}

#[test]
fn a_last_line_without_a_newline_is_refused() {
    let (records, end) = read(b"a\t1\nb\t2", false);
    assert_eq!(records.len(), 1);
    assert!(end.starts_with("incomplete: the file ends within line 2"), "{end}");
    let (records, end) = read(b"a\t1\nb\t2", true);
    assert_eq!(
        (records.len(), end.starts_with("missing: ")),
        (1, true),
        "half a record is never loaded: {end}"
    );
}

#[test]
fn a_bad_line_is_named() {
    for partial in [false, true] {
        let (records, end) = read(b"a\t1\n\nb\t2\n", partial);
        assert_eq!(records.len(), 1);
        assert!(end.starts_with("bad_input: line 2: no tab"), "{end}");
        assert!(read(b"# a comment\n", partial).1.starts_with("bad_input: line 1: no tab"));
    }
}

#[test]
fn a_dump_that_is_whole_is_read_as_it_was() {
    let (records, end) = read(whole().as_bytes(), false);
    assert_eq!(records, ["2 a=1 4", "3 b=two\tparts\n 15", "4 # c= 5"]);
    assert_eq!(end, "");
    assert_eq!(read(dump(&[]).as_bytes(), false), (Vec::new(), String::new()));
    // The example of docs/cli.md; Python agrees: f"{zlib.crc32(b'a\tone\n'):08x}".
    assert_eq!(dump(&[("a", "one")]), "# clerk dump 1\na\tone\n# end of dump: 1 records, crc32 a62968ae\n");
}

#[test]
fn a_dump_that_was_cut_anywhere_is_refused() {
    let whole = whole();
    for cut in 1..whole.len() {
        let part = &whole.as_bytes()[..cut];
        let (_, end) = read(part, false);
        assert!(end.starts_with("incomplete: "), "cut at {cut}: {end:?}");
        let (records, end) = read(part, true);
        assert!(end.starts_with("missing: "), "cut at {cut}: {end:?}");
        let lines = part.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        assert_eq!(records.len(), lines.count().saturating_sub(1), "whole lines are records: cut at {cut}");
    }
}

#[test]
fn a_dump_in_which_any_bit_changed_is_refused() {
    let whole = whole();
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone().into_bytes();
        changed[bit / 8] ^= 1 << (bit % 8);
        let (records, end) = read(&changed, false);
        // A first line that is no dump's any more makes plain records of the rest, and the last line is none.
        assert!(!end.is_empty(), "bit {bit}: {records:?}");
    }
}

#[test]
fn a_dump_with_a_line_lost_doubled_or_moved_is_refused() {
    let whole = whole();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for at in 0..lines.len() {
        let mut lost = lines.clone();
        lost.remove(at);
        assert_ne!(read(lost.concat().as_bytes(), false).1, "", "without line {at}");
        let mut doubled = lines.clone();
        doubled.insert(at, lines[at]);
        assert_ne!(read(doubled.concat().as_bytes(), false).1, "", "line {at} twice");
        if at > 0 {
            let mut moved = lines.clone();
            moved.swap(at - 1, at);
            assert_ne!(read(moved.concat().as_bytes(), false).1, "", "line {at} earlier");
        }
    }
}

#[test]
fn two_dumps_in_one_file_are_refused_and_taken_in_part() {
    let two = dump(&[("a", "1")]) + &dump(&[("b", "2")]);
    assert!(read(two.as_bytes(), false).1.contains("line 4: a dump begins within this file"));
    let (records, end) = read(two.as_bytes(), true);
    assert_eq!(records, ["2 a=1 4", "5 b=2 4"]);
    assert!(end.starts_with("missing: line 4"), "{end}");
}

#[test]
fn a_dump_of_another_format_is_refused_by_name() {
    for header in ["# clerk dump 2", "# clerk dump 1\r"] {
        let text = whole().replacen("# clerk dump 1", header, 1);
        for partial in [false, true] {
            let end = read(text.as_bytes(), partial).1;
            assert!(end.contains("line 1: the first line of a dump, but not `# clerk dump 1`"), "{end}");
        }
    }
}
