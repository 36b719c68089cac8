use std::collections::BTreeMap;

use clerk::api::config::{Params, shard_of};

use std::sync::Arc;
use std::time::Duration;

use base::socket::{Here, Limits, Listener};

use super::{PART_KEYS, Store, StoreError, change_jobs, deal, is_reserved, sum};
use crate::files::Output;

fn words() -> Output {
    Output { prefix: "wc/".to_owned(), add: true }
}

fn refused(output: &Output, key: &str, value: String, limits: Params) -> StoreError {
    match deal(9, 3, output, &[(key.to_owned(), value)], limits) {
        Ok(_) => panic!("{key:?} is taken"),
        Err(error) => error,
    }
}

#[test]
fn a_part_and_its_mark_lie_in_one_shard_and_no_two_marks_are_the_same() {
    let pairs: Vec<_> = (0..3000).map(|word| (format!("word{word}"), "1".to_owned())).collect();
    let limits = Params::default();
    for shards in [1, 7, 64, 1024] {
        let parts = deal(9, 3, &words(), &pairs, Params { shard_count: shards, ..limits }).unwrap();
        let keys: usize = parts.iter().map(|part| part.pairs.len()).sum();
        assert_eq!(keys, pairs.len());
        for part in &parts {
            let shard = shard_of(&part.mark, shards);
            assert!(is_reserved(&part.mark));
            assert!(part.pairs.len() <= PART_KEYS);
            assert!(part.pairs.iter().all(|(key, _)| shard_of(key, shards) == shard));
        }
        let marks: std::collections::BTreeSet<_> = parts.iter().map(|part| &part.mark).collect();
        assert_eq!(marks.len(), parts.len());
    }
}

/// Rule 92: in a batch, such a value would be missing while its mark exists.
#[test]
fn what_the_store_would_refuse_is_refused_before_anything_is_sent() {
    let limits = Params { key_bytes_max: 20, value_bytes_max: 100, ..Params::default() };
    let fitting = [("x".repeat(17), "y".repeat(100))];
    assert!(deal(9, 3, &words(), &fitting, limits).is_ok());
    let error = refused(&words(), &"x".repeat(18), "1".to_owned(), limits);
    assert!(matches!(error, StoreError::TooLarge(key, _) if key.starts_with("wc/x")));
    let error = refused(&words(), "x", "y".repeat(101), limits);
    assert_eq!(error, StoreError::TooLarge("wc/x".to_owned(), 105));
    // A sum may become as long as numbers get.
    let small = Params { value_bytes_max: 39, ..limits };
    assert!(matches!(refused(&words(), "x", "1".to_owned(), small), StoreError::TooLarge(..)));
    // A job must not write to its own books.
    let bare = Output { prefix: String::new(), add: true };
    assert_eq!(refused(&bare, "mr/jobs", "1".to_owned(), limits), StoreError::Reserved("mr/jobs".to_owned()));
    assert!(matches!(refused(&bare, "{7}mr/x", "1".to_owned(), limits), StoreError::Reserved(_)));
    assert!(
        !is_reserved(b"{7") && !is_reserved(b"mr") && !is_reserved(b"amr/") && !is_reserved(b"{7}wc/mr/")
    );
}

#[test]
fn only_whole_numbers_are_added() {
    assert_eq!(sum(b"k", None, "3"), Ok("3".to_owned()));
    assert_eq!(sum(b"k", Some(b"-4"), "3"), Ok("-1".to_owned()));
    assert_eq!(sum(b"k", Some(b"9223372036854775807"), "1"), Ok("9223372036854775808".to_owned()));
    let not = StoreError::NotANumber("k".to_owned(), "x".to_owned());
    assert_eq!(sum(b"k", Some(b"x"), "3"), Err(not));
}

/// Rule 121.
#[test]
fn of_jobs_whose_prefixes_overlap_one_runs() {
    let mut jobs = BTreeMap::new();
    assert_eq!(change_jobs(&mut jobs, "1", Some("a/b/")), Ok(true));
    // Another coordinator of the same job.
    assert_eq!(change_jobs(&mut jobs, "1", Some("a/b/")), Ok(false));
    assert_eq!(change_jobs(&mut jobs, "2", Some("a/c/")), Ok(true));
    for prefix in ["a/b/", "a/b/c", "a/", ""] {
        let error = change_jobs(&mut jobs, "3", Some(prefix)).unwrap_err();
        assert!(matches!(error, StoreError::Locked(..)), "{prefix:?}: {error}");
    }
    let error = change_jobs(&mut jobs, "3", Some("a/b/c")).unwrap_err().to_string();
    assert!(error.contains("job 1 writes under \"a/b/\""), "{error}");
    assert_eq!(change_jobs(&mut jobs, "1", None), Ok(true));
    assert_eq!(change_jobs(&mut jobs, "1", None), Ok(false));
    assert_eq!(change_jobs(&mut jobs, "3", Some("a/b/c")), Ok(true));
}

/// If another cluster has the addresses, a job that continues would write the rest of its results
/// there.
#[tokio::test]
async fn a_job_goes_on_only_with_its_own_cluster() {
    let listener = Listener::bind("127.0.0.1:0", Limits::default()).await.unwrap();
    let addresses = [listener.address().to_string()];
    let here = Arc::new(Here { cluster: "new".to_owned(), ..Here::default() });
    tokio::spawn(listener.run(move |arrival| {
        let here = Arc::clone(&here);
        async move { drop(arrival.admit(&here).await) }
    }));
    for meant in [None, Some("new")] {
        let (_, cluster) = Store::connect(&addresses, meant, Duration::ZERO).await.ok().unwrap();
        assert_eq!(cluster, "new");
    }
    let refused = Store::connect(&addresses, Some("old"), Duration::ZERO).await.err().unwrap().to_string();
    assert!(refused.contains("\"new\"") && refused.contains("\"old\""), "{refused}");
}
