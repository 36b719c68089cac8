use super::{Emitted, Fault, Program, run_shell};
use crate::files::Run;
use crate::trials::Host;

#[tokio::test]
async fn two_commands_count_words() {
    let run = Run::Commands {
        map: "tr ' ' '\\n' | sed 's/$/\\t1/'".to_owned(),
        reduce: "awk -F '\\t' '{n[$1] += $2} END {for (w in n) print w \"\\t\" n[w]}' | sort".to_owned(),
    };
    let program = Program::of(&run).unwrap();
    let mut emitted = Emitted::default();
    program.map(&Host::of(1), "x", "to be or not to be", &mut emitted).await.unwrap();
    let mut groups = super::Groups::new();
    emitted.pairs.into_iter().for_each(|(key, value)| groups.entry(key).or_default().push(value));
    let reduced = program.reduce(&Host::of(1), &groups, |_| {}).await.unwrap();
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(reduced, [pair("be", "2"), pair("not", "1"), pair("or", "1"), pair("to", "2")]);
}

#[tokio::test]
async fn a_command_that_fails_says_how() {
    let program = Program::of(&Run::Commands { map: "exit 3".into(), reduce: "cat".into() }).unwrap();
    let failed = program.map(&Host::of(1), "file", "x", &mut Emitted::default()).await.unwrap_err();
    let Fault::Failed(record, text) = failed else { panic!("{failed:?}") };
    assert!(record == "file" && text.contains("exit status: 3"), "{record} {text}");
    // More input than a pipe holds, to a command that reads none of it.
    assert_eq!(run_shell("echo $MR_NAME", "n", vec![b'x'; 1 << 20]), Ok("n\n".to_owned()));
}
