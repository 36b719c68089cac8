//! `slow`: the requests of all servers that took long, and where their time went.
//!
//! Left out on purpose: the limit, which is a setting of each server.

use std::time::Duration;

use base::clock;
use clerk::api::server::SlowRequest;
use clerk_survey::document::{controllers, replicas};
use clerk_survey::slow::Slow;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::survey::survey;

/// How long a server may take to say which they were.
const ANSWER_MAX: Duration = Duration::from_secs(2);

pub(crate) async fn slow(context: &Context) -> Result<(), Failure> {
    let reach = context.reach_what_runs().await?;
    let survey = survey(&reach, context.data_until()).await;
    let asked = reach.asked();
    let mut slow = Slow::default();
    slow.learn(&asked, &survey, ANSWER_MAX).await;
    let groups = survey.groups.keys().flat_map(|group| replicas(&asked, &survey, *group));
    let all = controllers(&asked, &survey).into_iter().chain(groups);
    let silent: Vec<String> = all.filter(|it| it.status.is_none()).map(|it| it.name).collect();
    let mut document = slow.document();
    if let Value::Object(fields) = &mut document {
        fields.insert("silent".to_owned(), json!(silent));
    }
    context.output.answer(&document, || text(&slow.newest(), &silent, clock::unix_millis()));
    Ok(())
}

fn text(slow: &[(&str, &SlowRequest)], silent: &[String], now: u64) -> String {
    let mut text = if slow.is_empty() {
        "no server that answers remembers a slow request\n".to_owned()
    } else {
        let head = ["SERVER", ">SECONDS AGO", "VERB", ">SHARD", "OUTCOME", ">MS", "WHERE (MS)"];
        table(&head, slow.iter().map(|(name, request)| row(name, request, now)))
    };
    if !silent.is_empty() {
        text += &format!("do not answer: {}\n", silent.join(", "));
    }
    text
}

fn row(name: &str, request: &SlowRequest, now: u64) -> Vec<String> {
    let ms = |micros: u64| format!("{:.1}", micros as f64 / 1000.0);
    let stages = request.stages.iter().map(|(stage, micros)| format!("{} {}", stage.name(), ms(*micros)));
    vec![
        name.to_owned(),
        (now.saturating_sub(request.at) / 1000).to_string(),
        request.verb.clone(),
        request.shard.map_or_else(String::new, |shard| shard.to_string()),
        request.outcome.clone(),
        ms(request.micros),
        stages.collect::<Vec<_>>().join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use clerk::api::ShardId;
    use clerk::api::server::{SlowRequest, Stage};
    use serde_json::json;

    use super::text;

    #[test]
    fn a_slow_request_is_a_line_that_says_where_its_time_went() {
        let request = SlowRequest {
            at: 1_000,
            verb: "put".to_owned(),
            shard: Some(ShardId(7)),
            outcome: "ok".to_owned(),
            micros: 512_000,
            stages: vec![(Stage::Queue, 10_000), (Stage::Replicate, 502_000)],
        };
        let told = text(&[("101.1", &request)], &["101.3".to_owned()], 4_500);
        let line = "101.1             3  put       7  ok       512.0  queue 10.0, replicate 502.0\n";
        assert!(told.contains(line) && told.ends_with("do not answer: 101.3\n"), "{told}");
        assert_eq!(text(&[], &[], 0), "no server that answers remembers a slow request\n");
        let expected = json!({"server": "101.1", "at": 1000, "verb": "put", "shard": 7, "outcome": "ok",
                              "seconds": 0.512, "stages": {"queue": 0.01, "replicate": 0.502}});
        assert_eq!(json!(request.shown("101.1")), expected);
    }
}
