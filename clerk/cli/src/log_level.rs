//! `log-level`: what servers write into their logs, asked or set while they run.
//!
//! Left out on purpose: keeping it. A server that starts again has the level that it is started with.

use std::time::Duration;

use base::process::check_log_level;
use clerk::api::server::{ServerReply, ServerRequest};
use clerk::statuses::ask_server;
use clerk_survey::reach::name;
use clerk_survey::servers::{Server, servers};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::args::LogLevel;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::survey::survey;

/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

pub(crate) async fn log_level(context: &Context, verb: &LogLevel) -> Result<(), Failure> {
    if let Some(level) = &verb.level {
        check_log_level(level).map_err(|why| Failure::usage(why.to_string()))?;
    }
    let reach = context.reach_what_runs().await?;
    let survey = survey(&reach, context.data_until()).await;
    let asked = reach.asked();
    let all = servers(&asked, &survey);
    let named: Vec<&Server<'_>> = all.iter().filter(|server| is_named(server, &verb.whose)).collect();
    if named.is_empty() {
        let names: Vec<&str> = all.iter().map(|server| server.name.as_str()).collect();
        let next = format!("name one of {}, a group, or all", names.join(", "));
        return Err(Failure::new("unknown_server", format!("no server is called {}", verb.whose)).next(next));
    }
    let request = ServerRequest::LogLevel(verb.level.clone());
    let answers = named.iter().map(|server| {
        ask_server(&*asked.connection, server.group, server.address, request.clone(), ANSWER_MAX)
    });
    let answers = join_all(answers).await.into_iter().map(|answer| match answer {
        Ok(ServerReply::LogLevel(level)) => Ok(level),
        Ok(ServerReply::Refused(why)) => Err(why),
        Ok(_) => Err("an answer to another question".to_owned()),
        Err(error) => Err(error.to_string()),
    });
    let answers: Vec<Answer> =
        named.iter().zip(answers).map(|(server, level)| Answer { name: &server.name, level }).collect();
    tell(context, &answers)
}

/// Whether `whose` means this server.
fn is_named(server: &Server<'_>, whose: &str) -> bool {
    // The name of a group is that of its servers without their number.
    let of_group = name(server.group.0, 0);
    whose == "all" || whose == server.name || Some(whose) == of_group.strip_suffix(".0")
}

/// What a server said: its level, or why not.
struct Answer<'a> {
    name: &'a str,
    level: Result<String, String>,
}

fn tell(context: &Context, answers: &[Answer<'_>]) -> Result<(), Failure> {
    let failed: Vec<&Answer<'_>> = answers.iter().filter(|answer| answer.level.is_err()).collect();
    context.output.answer(&json!({"servers": answers.iter().map(document).collect::<Vec<_>>()}), || {
        table(&["SERVER", "LEVEL"], answers.iter().map(row))
    });
    let Some(first) = failed.first() else { return Ok(()) };
    let why = first.level.as_ref().expect_err("only those that failed");
    let names: Vec<&str> = failed.iter().map(|answer| answer.name).collect();
    let message = format!("{} did not answer or refused ({why})", names.join(", "));
    Err(Failure::in_part("unavailable", message).next("start them, or name the others").answered())
}

fn document(answer: &Answer<'_>) -> Value {
    match &answer.level {
        Ok(level) => json!({"name": answer.name, "level": level, "error": null}),
        Err(why) => json!({"name": answer.name, "level": null, "error": why}),
    }
}

fn row(answer: &Answer<'_>) -> Vec<String> {
    let level = answer.level.clone().unwrap_or_else(|why| format!("- ({why})"));
    vec![answer.name.to_owned(), level]
}
