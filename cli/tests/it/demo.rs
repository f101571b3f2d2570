//! The demo, ended by Ctrl-C at any moment: it leaves no process and no directory behind.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use callback_guard_harness::{places, wait};

/// The processes that were started with a file below `directory`.
fn processes_of(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(directory))
        .collect()
}

/// Sends Ctrl-C to the demo and all that it has started, as a terminal does, once it has printed a
/// line with `moment` in it.
#[track_caller]
fn interrupt_at(moment: &str, arguments: &[&str]) {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_callback-guard"))
        .arg("demo")
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let seen = lines.any(|line| line.unwrap().contains(moment));
    assert!(seen, "the demo ended before it printed {moment:?}");

    let group = format!("-{}", demo.id());
    let kill = Command::new("kill").args(["-INT", "--", &group]).status();
    assert!(kill.unwrap().success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    let status = demo.wait().unwrap();
    // `--keep` has shown all by then, and ends as promised.
    let expected = if arguments.is_empty() { 130 } else { 0 };
    assert_eq!(status.code(), Some(expected), "{rest:#?}");

    let run = places::target().join(format!("envoy-runs/{}-", demo.id()));
    let run = run.to_str().unwrap();
    wait::wait_for("the end of all processes", || {
        processes_of(run).is_empty().then_some(())
    })
    .unwrap();
    let folder = std::fs::read_dir(places::target().join("envoy-runs")).unwrap();
    let left: Vec<_> = folder
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().starts_with(run))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn ctrl_c_leaves_nothing_behind_at_any_moment() {
    for moment in [
        "filter",
        "Envoy",
        "listens on",
        "signed with another key",
        "the same event three times",
    ] {
        interrupt_at(moment, &[]);
    }
    interrupt_at("It keeps running", &["--keep"]);
}
