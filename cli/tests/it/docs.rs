//! The documentation keeps up with the code.

use callback_guard_core::verdict::Code;

use crate::support::repository;

fn doc(name: &str) -> String {
    std::fs::read_to_string(repository().join("docs").join(name)).unwrap()
}

#[test]
fn troubleshooting_has_every_code_once_with_its_status() {
    let text = doc("troubleshooting.md");
    for code in Code::ALL {
        let heading = format!("\n### `{code}`\n{}", code.status());
        assert_eq!(text.matches(&heading).count(), 1, "{code}");
    }
    assert_eq!(text.matches("\n### ").count(), Code::ALL.len());
}

#[test]
fn commands_in_the_documentation_exist() {
    for name in [
        "troubleshooting.md",
        "rotation.md",
        "migrating.md",
        "upgrading.md",
    ] {
        let text = doc(name);
        let lines = text
            .lines()
            .filter_map(|line| line.split_once("callback-guard "));
        let commands =
            lines.filter(|(before, _)| before.trim().is_empty() || before.ends_with("one "));
        let mut count = 0;
        for (_, rest) in commands {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let help = crate::support::run(&[words[0], "--help"]);
            assert_eq!(help.code, 0, "{name}: {rest}");
            for flag in words.iter().filter(|word| word.starts_with("--")) {
                assert!(help.out.contains(flag), "{name}: {rest}: {flag}");
            }
            count += 1;
        }
        assert!(count > 0, "{name}");
    }
}
