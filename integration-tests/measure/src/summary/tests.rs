use super::{Measured, Metric, OURS, Results, TARGETS, figure, median, table};

fn run(rate: f64, p50_ms: f64) -> Measured {
    Measured { rate, p50_ms, p99_ms: 2.0 * p50_ms, server_us: 10.0, ..Measured::default() }
}

fn results() -> Results {
    let mut results = Results::default();
    for rate in [30_000.0, 50_000.0, 40_000.0] {
        results.add("put-64", OURS, run(rate, 3.0));
        results.add("put-64", "etcd", run(rate / 5.0, 9.0));
    }
    results
}

#[test]
fn the_median_is_the_middle_one_whatever_the_order() {
    assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.0));
    assert_eq!(median([5.0]), Some(5.0));
    assert_eq!(median([]), None);
}

#[test]
fn figures_are_shown_with_the_digits_they_deserve() {
    let shown: Vec<String> = [0.453, 12.34, 156.7, 1_234_567.0, 999.9].into_iter().map(figure).collect();
    assert_eq!(shown, ["0.45", "12.3", "157", "1,234,567", "1,000"]);
}

#[test]
fn a_target_is_judged_by_the_median_of_its_figure() {
    let results = results();
    let rate = TARGETS.iter().find(|it| it.point == "put-64" && it.metric == Metric::Rate).unwrap();
    let p99 = TARGETS.iter().find(|it| it.point == "put-64" && it.metric == Metric::P99).unwrap();
    assert_eq!(results.verdict(rate), Some((40_000.0, true)));
    assert_eq!(results.verdict(p99), Some((6.0, false)));
    // Judged by the ratio to its peer, the processor time misses too: it is the same.
    assert_eq!(results.missed(), 2);
    let unmeasured = TARGETS.iter().find(|it| it.point == "core").unwrap();
    assert_eq!(results.verdict(unmeasured), None);
}

#[test]
fn beside_its_peer_a_target_is_judged_by_the_ratio_that_was_asked_for() {
    let rate = TARGETS.iter().find(|it| it.point == "put-64" && it.metric == Metric::Rate).unwrap();
    // The target is 35,000 to 8,600.
    let judged = |ours, theirs| {
        let mut results = Results::default();
        results.add("put-64", OURS, run(ours, 3.0));
        results.add("put-64", "etcd", run(theirs, 9.0));
        (results.verdict(rate).unwrap().1, results.ratio_verdict(rate).unwrap().1)
    };
    assert_eq!(judged(16_000.0, 3_500.0), (false, true));
    assert_eq!(judged(36_000.0, 12_000.0), (true, false));
    let mut alone = Results::default();
    alone.add("put-64", OURS, run(36_000.0, 3.0));
    assert_eq!(alone.ratio_verdict(rate), None);
}

#[test]
fn the_table_of_targets_has_the_runs_and_the_ratio_to_each_other_store() {
    let text = results().targets();
    let line = text.lines().find(|line| line.contains("op/s")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let expected = [
        "8,000", "40,000", "30,000", "50,000", "40,000", "5.00x", "35,000", "70,000", "pass", "4.07x",
        "etcd", "pass",
    ];
    assert_eq!(words[words.len() - expected.len()..], expected, "{text}");
    assert!(text.lines().any(|line| line.trim_end().ends_with("MISS")), "{text}");
    // A point that was not measured has no line.
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn the_document_has_every_run_and_every_verdict() {
    let document = results().document();
    assert_eq!(document["points"][1]["store"], OURS);
    assert_eq!(document["points"][1]["runs"].as_array().unwrap().len(), 3);
    assert_eq!(document["points"][1]["median"]["rate"], 40_000.0);
    assert_eq!(document["targets"].as_array().unwrap().len(), 3);
    assert_eq!(document["targets"][0]["ours_to"]["etcd"], 5.0);
}

#[test]
fn columns_of_numbers_are_aligned_to_the_right() {
    let text = table(&["name", ">count"], [vec!["a".to_owned(), "1".to_owned()]]);
    assert_eq!(text, " name  count\n a         1\n");
}
