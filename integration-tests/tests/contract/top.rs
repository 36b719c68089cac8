//! `top`: once over a pipe, and live in a terminal, which util-linux' `script` plays.

use std::io::Read as _;
use std::process::{Child, ChildStdin};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::*;

/// What takes a terminal, and what gives it back.
const TAKEN: &str = "\x1b[?1049h";
const GIVEN_BACK: &str = "\x1b[?1049l";

/// A terminal in which a shell runs `clerk top`: it prints the terminal's modes before and after.
struct Terminal {
    script: Child,
    keyboard: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn open(cluster: &Cluster) -> Self {
        let top = cluster.command(&["top"]);
        let words = std::iter::once(top.get_program()).chain(top.get_args());
        let words: Vec<String> = words.map(|word| format!("'{}'", word.display())).collect();
        // The shell goes on after a Ctrl-C. Its child says its id, and becomes the program.
        let line = format!(
            "trap : INT; stty cols 80 rows 24; echo modes=$(stty -g); sh -c 'echo pid=$$; exec \"$@\"' sh {}; \
             echo code=$?; echo modes=$(stty -g); echo over",
            words.join(" ")
        );
        let mut command = Command::new("script");
        command.args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"]);
        command.env("TERM", "xterm").env_remove("CLERK_DIR").env_remove("CLERK_CONTROLLERS");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut script = command.spawn().expect("util-linux' script");
        let (keyboard, mut screen) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&shown);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                kept.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { script, keyboard, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// Waits until it shows this, so often.
    fn await_shown(&self, text: &str, times: usize) -> String {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if shown.matches(text).count() >= times {
                return shown;
            }
            assert!(begun.elapsed() < LIMIT, "{text:?} is not shown {times} times: {shown:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
        self.keyboard.flush().unwrap();
    }

    fn pid(&self) -> Pid {
        let shown = self.await_shown("pid=", 1);
        let pid = values(&shown, "pid")[0].parse().unwrap();
        Pid::from_raw(pid).unwrap()
    }

    /// Waits for its end, with this exit code and the terminal as it was.
    fn await_end(mut self, code: &str) -> String {
        let shown = self.await_shown("over\r\n", 1);
        self.script.wait().unwrap();
        assert_eq!(values(&shown, "code"), [code], "{shown:?}");
        let modes = values(&shown, "modes");
        assert_eq!((modes.len(), modes.first()), (2, modes.last()), "the keyboard is as it was");
        assert!(shown.rfind(GIVEN_BACK) > shown.rfind(TAKEN), "the screen is given back: {shown:?}");
        assert_eq!(shown.matches("\x1b[?25l").count(), shown.matches("\x1b[?25h").count(), "the cursor");
        shown
    }
}

/// The values of a name, of all lines `name=value`.
fn values<'a>(shown: &'a str, name: &str) -> Vec<&'a str> {
    let parts = shown.split(&format!("{name}=")).skip(1).collect::<Vec<_>>();
    parts.iter().filter_map(|part| part.split(['\r', '\n']).next()).collect()
}

#[test]
fn over_a_pipe_top_prints_one_frame_of_plain_text() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "2", "--replicas", "1", "--shards", "12"]);
    let frame = cluster.ok(&["top"]);
    assert!(!frame.chars().any(|letter| letter.is_control() && letter != '\n'), "{frame:?}");
    let sentence = "All 5 servers answer, every group has a leader, configuration 1 is settled.";
    assert_eq!(frame.matches(sentence).count(), 1, "{frame}");
    // The rates are known: two looks.
    let idle = frame.lines().find(|line| line.starts_with("102")).unwrap();
    assert_eq!(idle.split_whitespace().nth(4), Some("0"), "{frame}");
    let document = cluster.json(&["top"]);
    assert_eq!(document["health"]["ok"], true);
    assert!(document["rates"]["groups"]["101"]["requests"].is_number(), "{document}");

    // As `status`: a silent cluster is an answer, controllers that nobody finds are a failure.
    cluster.ok(&["kill", "all"]);
    let frame = cluster.ok(&["top"]);
    assert!(frame.contains("0 of 5 servers") && frame.contains("no answer"), "{frame}");
    let mut command = Command::new(binary("clerk"));
    command.args(["--controllers", "127.0.0.1:1", "--timeout", "0.5", "-o", "json", "top"]);
    assert_eq!(run(&mut command, None, LIMIT).error(1), "unavailable");
    let mut command = Command::new(binary("clerk"));
    command.args(["--dir", "/nowhere/at/all", "-o", "json", "top"]).env_remove("CLERK_CONTROLLERS");
    assert_eq!(run(&mut command, None, LIMIT).error(1), "no_cluster");
}

#[test]
fn in_a_terminal_top_is_live_obeys_keys_and_gives_the_terminal_back() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1", "--shards", "12"]);
    let mut terminal = Terminal::open(&cluster);
    terminal.await_shown("All 4 servers answer", 2);
    terminal.press(b"s");
    terminal.await_shown("sort (by op/s)", 1);
    cluster.ok(&["kill", "101.1"]);
    terminal.await_shown("Group 101: no server answers.", 1);
    terminal.await_shown("s ago", 1);
    cluster.ok(&["start", "101.1"]);
    terminal.press(b"q");
    let shown = terminal.await_end("0");
    assert!(!shown[shown.rfind(GIVEN_BACK).unwrap()..].contains("servers"), "{shown:?}");

    // An Esc alone ends it, too; an arrow, which begins with one, does not.
    let mut terminal = Terminal::open(&cluster);
    terminal.await_shown("SERVER", 1);
    terminal.press(b"\x1b[B\x1b[A");
    let frames = terminal.shown().matches("SERVER").count();
    terminal.await_shown("SERVER", frames + 2);
    terminal.press(b"\x1b");
    terminal.await_end("0");
}

#[test]
fn signals_end_or_suspend_top_with_the_terminal_given_back() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1", "--shards", "12"]);
    let mut terminal = Terminal::open(&cluster);
    terminal.await_shown("All 4 servers answer", 1);
    terminal.press(b"\x03");
    terminal.await_end("130");

    let terminal = Terminal::open(&cluster);
    terminal.await_shown("All 4 servers answer", 1);
    kill_process(terminal.pid(), Signal::TERM).unwrap();
    terminal.await_end("130");

    let mut terminal = Terminal::open(&cluster);
    terminal.await_shown("All 4 servers answer", 1);
    let pid = terminal.pid();
    kill_process(pid, Signal::TSTP).unwrap();
    terminal.await_shown(GIVEN_BACK, 1);
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('T')
    };
    let begun = Instant::now();
    while !is_stopped() {
        assert!(begun.elapsed() < LIMIT);
        std::thread::sleep(Duration::from_millis(20));
    }
    kill_process(pid, Signal::CONT).unwrap();
    terminal.await_shown(TAKEN, 2);
    terminal.press(b"q");
    terminal.await_end("0");
}

#[test]
fn a_cluster_that_nobody_reaches_is_told_in_a_terminal_until_it_answers() {
    let _machine = together();
    let cluster = Cluster::up(&["--groups", "1", "--replicas", "1", "--shards", "12"]);
    let controllers: Vec<String> = {
        let status = cluster.json(&["status"]);
        let all = status["controllers"].as_array().unwrap();
        all.iter().map(|it| it["address"].as_str().unwrap().to_owned()).collect()
    };
    cluster.ok(&["down"]);
    let place = Place::new();
    let elsewhere = Cluster::by_hand(place, controllers.join(","));
    let mut terminal = Terminal::open(&elsewhere);
    terminal.await_shown("Looking at the cluster", 1);
    cluster.ok(&["up"]);
    terminal.await_shown("All 4 servers answer", 1);
    terminal.press(b"q");
    terminal.await_end("0");
}
