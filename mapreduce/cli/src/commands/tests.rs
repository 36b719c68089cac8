use super::Commands;
use mapreduce::{Fault, Groups, Program};

fn commands(map: &str, reduce: &str) -> Commands {
    Commands::new(map.to_owned(), reduce.to_owned()).unwrap()
}

#[tokio::test]
async fn two_commands_count_words() {
    let program = commands(
        "tr ' ' '\\n' | sed 's/$/\\t1/'",
        "awk -F '\\t' '{n[$1] += $2} END {for (w in n) print w \"\\t\" n[w]}' | sort",
    );
    let mut groups = Groups::new();
    for (key, value) in program.map("x", "to be or not to be").await.unwrap() {
        groups.entry(key).or_default().push(value);
    }
    let reduced = program.reduce(&groups, &mut String::new()).await.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(reduced, [pair("be", "2"), pair("not", "1"), pair("or", "1"), pair("to", "2")]);
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    let program = commands("exit 3", "cat");
    let failed = program.map("file", "x").await.unwrap_err();
    let Fault::Failed(record, text) = failed else { panic!("{failed:?}") };
    assert!(record == "file" && text.contains("exit status: 3"), "{record} {text}");
    // More input than a pipe holds, to a command that reads none of it.
    let printed = program.shell("echo $MR_NAME", "n", "x".repeat(1 << 20)).await;
    assert_eq!(printed, Ok(vec![("n".to_owned(), String::new())]));
    let printed = program.shell("printf '\\377'", "n", String::new()).await;
    assert!(printed.unwrap_err().contains("UTF-8"));
}
