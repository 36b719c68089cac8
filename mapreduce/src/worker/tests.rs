use super::check_keys;
use crate::program::part_of;

/// One of both values would be missing in the store, beside the mark that says that all is there (rule 92).
#[test]
fn a_key_that_is_printed_twice_or_by_another_reducer_does_not_go_into_the_store() {
    let pair = |key: &str| (key.to_owned(), "1".to_owned());
    let mine = part_of("total", 10);
    assert_eq!(check_keys(&[pair("total")], mine, 10), Ok(()));
    assert!(check_keys(&[pair("total"), pair("total")], mine, 10).is_err());
    assert!(check_keys(&[pair("total")], (mine + 1) % 10, 10).is_err());
}
