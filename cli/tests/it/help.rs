//! Every command explains itself, and tells wrong usage from a no.

use crate::support::run;

const COMMANDS: [&str; 7] = ["check", "demo", "explain", "init", "schema", "send", "sign"];

#[test]
fn every_command_has_help_with_an_example() {
    let all = run(&["--help"]);
    assert_eq!(all.code, 0);
    for command in COMMANDS {
        assert!(all.out.contains(&format!("  {command} ")), "{command}");
        let one = run(&[command, "--help"]);
        assert_eq!(one.code, 0, "{command}");
        assert!(one.out.contains("Example"), "{command}: {}", one.out);
        assert!(
            one.out.contains(&format!("\n  callback-guard {command}")),
            "{command}"
        );
        assert_eq!(one.err, "", "{command}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_so_on_stderr() {
    for arguments in [
        &[][..],
        &["no-such-command"],
        &["sign"],
        &["send"],
        &["check"],
        &["sign", "--no-such-flag"],
        &["sign", "/no/such/file"],
        &["check", "/no/such/file"],
        &["explain"],
        &["explain", "/no/such/file"],
        &["explain", "README.md"],
        &["send", "https:///"],
        &["send", "ftp://127.0.0.1/"],
    ] {
        let run = run(arguments);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{arguments:?}");
        assert!(!run.err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let program = env!("CARGO_BIN_EXE_callback-guard");
    for arguments in [
        "schema",
        "init --list",
        "send --list-kinds",
        "init --preset suno",
    ] {
        // `true` reads nothing: the first write meets a closed pipe.
        let script = format!("'{program}' {arguments} | true; echo ${{PIPESTATUS[0]}}");
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text.trim(), "0", "{arguments}");
        assert!(output.stderr.is_empty(), "{arguments}");
    }
}
