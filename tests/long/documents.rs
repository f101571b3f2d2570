//! Every page of the repository: each command and each configuration that it prints is run by a test, or is
//! in [`UNMARKED`] with the reason why not; each link leads somewhere.
//!
//! A block is run by the test that `<!-- run: NAME -->` on the line before it names, which takes it from the
//! page (`harness::page`). Configurations in JSON need no mark: [`SHOWN_JSON`] takes all of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use callback_guard_harness::page::{Block, blocks};
use callback_guard_harness::{page, places, program};

/// The test that has every configuration checked that a page shows.
const SHOWN_JSON: &str = "every_configuration_that_is_shown_is_accepted";

/// Why a command has no mark.
#[derive(Debug)]
enum Unmarked {
    /// It is a step of `.ci/run`.
    Step,
    /// It is a step of a workflow under `.github`.
    Workflow,
    /// This test runs it, though not word for word.
    By(&'static str),
    /// It is not run, for this reason.
    Not(&'static str),
}

use Unmarked::{By, Not, Step, Workflow};

const BENCHMARK: Unmarked =
    Not("a benchmark: takes minutes, and other programs than the tests have");

const DENY: Unmarked = Not("`.ci/run` installs it, and runs it for each lock file");

const UNMARKED: &[(&str, Unmarked)] = &[
    (".ci/run fast", Workflow),
    (".ci/run older 1.36.4", Step),
    (
        "BLESS=1 cargo test -p callback-guard-core --test it",
        By("the_document_says_what_the_table_says"),
    ),
    (
        "BLESS=1 cargo test -p callback-guard-harness --test files",
        By("envoy_native_yaml_is_made_from_envoy_yaml"),
    ),
    (
        "CALLBACK_GUARD_SOAK_SECONDS=1800 cargo test-long soak -- --nocapture",
        Not("takes half an hour; the same test runs for 20 seconds"),
    ),
    (
        "ENVOY_BIN=/path/to/envoy cargo bench-guard --write --also v01=v01.wasm",
        BENCHMARK,
    ),
    (
        "ENVOY_BIN=/path/to/envoy cargo test",
        Not("`.ci/run older` does it with another Envoy"),
    ),
    (
        "apt-get install wrk nginx libnginx-mod-http-js redis-server webdis nodejs npm",
        BENCHMARK,
    ),
    (
        "bench/size.py target/wasm32-wasip1/release/callback_guard.wasm",
        BENCHMARK,
    ),
    (
        "callback-guard check envoy.yaml",
        By("both_programs_accept_the_file"),
    ),
    (
        "callback-guard explain --config guard.json capture.txt",
        By("a_captured_request_is_explained"),
    ),
    (
        "callback-guard schema > guard.schema.json",
        By("the_file_in_docs_is_current"),
    ),
    (
        "callback-guard sign --config guard.json body.json",
        By("a_source_of_a_configuration_signs_as_itself"),
    ),
    (
        "cargo +nightly fuzz run",
        Not("takes 20 minutes a target, before a release"),
    ),
    (
        "cargo bench -p callback-guard-bench-native --bench core",
        BENCHMARK,
    ),
    (
        "cargo bench -p callback-guard-bench-native --bench store",
        BENCHMARK,
    ),
    (
        "cargo bench -p callback-guard-bench-native --bench timing",
        BENCHMARK,
    ),
    ("cargo bench-guard", BENCHMARK),
    (
        "cargo bench-guard --only guard --also old=old.wasm",
        BENCHMARK,
    ),
    ("cargo bench-guard --quick", BENCHMARK),
    ("cargo bench-guard --rate 1000", BENCHMARK),
    ("cargo bench-guard --remembered", BENCHMARK),
    (
        "cargo bench-guard --rounds 30 --only guard,floor --traffic new",
        BENCHMARK,
    ),
    ("cargo bench-guard --write", BENCHMARK),
    (
        "cargo build",
        Not("the page says why `deploy/module.sh` is better"),
    ),
    (
        "cargo build --release --manifest-path native/Cargo.toml",
        By("the_native_build_is_checked_and_started"),
    ),
    (
        "cargo build --release --target wasm32-wasip1 --config 'target.wasm32-wasip1.rustflags=[\"-Cstrip=debuginfo\"]'",
        BENCHMARK,
    ),
    (
        "cargo callback-guard",
        By("the_readme_checks_a_file_from_the_checkout"),
    ),
    (
        "cargo callback-guard schema > docs/config.schema.json",
        By("the_file_in_docs_is_current"),
    ),
    (
        "cargo check",
        Not("brings lock files up to date; every other build checks more"),
    ),
    ("cargo check --manifest-path fuzz/Cargo.toml", Step),
    ("cargo demo", Step),
    ("cargo demo --fleet", Step),
    ("cargo demo --inbox", Step),
    ("cargo demo --native", Step),
    ("cargo deny", DENY),
    ("cargo deny check", DENY),
    (
        "cargo doc --open -p callback-guard-core",
        Not("opens a browser; .ci/run makes the same pages"),
    ),
    (
        "cargo run --release -p callback-guard-inbox --example bench -- --seconds 10 --backlog 1000000 --of postgres,redis",
        BENCHMARK,
    ),
    (
        "cargo run --release -p callback-guard-inbox --example bench -- --seconds 10 --backlog 1000000 --of sqlite",
        BENCHMARK,
    ),
    ("cargo test", Step),
    (
        "cargo test-long calls:: -- --nocapture",
        Not("a part of `cargo test-long`"),
    ),
    (
        "cargo test-long each_kind -- --nocapture",
        Not("a part of `cargo test-long`"),
    ),
    (
        "cargo test --test envoy refuse",
        Not("a part of `cargo test`"),
    ),
    (
        "cargo test -p callback-guard-core",
        Not("a part of `cargo test`"),
    ),
    (
        "cargo test -p callback-guard-core --test model",
        Not("a part of `cargo test`"),
    ),
    (
        "cargo test -p callback-guard-core -p callback-guard-scan",
        Not("a part of `cargo test`"),
    ),
    ("cargo test-long", Step),
    ("cargo test-services", Step),
    (
        "cargo test-services proof",
        Not("a part of `cargo test-services`"),
    ),
    (
        "core/tests/mutations/run.sh",
        Not("takes 12 minutes; for changes of the store and the worker"),
    ),
    (
        "cosign verify-blob --bundle SHA256SUMS.sigstore.json --certificate-identity-regexp '/\\.github/workflows/release\\.yml@refs/tags/v' --certificate-oidc-issuer https://token.actions.githubusercontent.com SHA256SUMS",
        Not("needs a published release and its signature"),
    ),
    (
        "curl --compressed",
        By("the_documented_listener_shows_what_the_other_one_decides"),
    ),
    ("curl -v", Not("the name of a form that `explain` reads")),
    ("date -u", Not("shows the clock of a machine")),
    (
        "deploy/envoy/run.sh envoy -c envoy.yaml",
        By("a_delivery_in_flight_at_the_stop_ends_with_its_answer"),
    ),
    (
        "deploy/module.sh",
        By("a_release_is_complete_and_each_file_runs_anywhere"),
    ),
    (
        "deploy/native.sh x86_64",
        By("it_runs_where_the_c_library_is_that_of_debian_11"),
    ),
    (
        "deploy/release.sh release",
        By("a_release_is_complete_and_each_file_runs_anywhere"),
    ),
    (
        "deploy/sbom.py callback-guard wasm32-wasip1 > docs/sbom.cdx.json",
        By("the_bill_of_materials_is_that_of_the_lock_file"),
    ),
    (
        "docker buildx build --file deploy/docker/Dockerfile --build-arg SOURCE_DATE_EPOCH=0 --output type=image,name=REGISTRY/callback-guard:0.2.0,rewrite-timestamp=true,push=true target/image",
        Not(
            "needs a registry and buildx; the Dockerfile is built by the_image_of_the_filter_holds_the_module_alone",
        ),
    ),
    (
        "docker compose --profile inbox up",
        By("an_application_that_is_down_gets_its_callback_from_the_inbox"),
    ),
    (
        "docker compose ps",
        By("a_missing_secret_is_named_and_hinders_no_other_command"),
    ),
    (
        "docker ps",
        By("what_the_pages_print_for_docker_builds_and_starts"),
    ),
    (
        "docker run",
        By("what_the_pages_print_for_docker_builds_and_starts"),
    ),
    (
        "docker run --stop-timeout 40",
        Not("an option to add; Compose's is tested"),
    ),
    (
        "docker stop",
        By("a_delivery_in_flight_at_the_stop_ends_with_its_answer"),
    ),
    (
        "install -D --mode 0644 target/wasm32-wasip1/release/callback_guard.wasm target/image/plugin.wasm",
        Not("before the build with buildx, which is not run"),
    ),
    (
        "kubectl kustomize",
        By("the_kustomize_base_is_complete_and_fits_its_schemas"),
    ),
    ("kubectl port-forward", Not("needs a cluster")),
    ("node --no-liftoff", BENCHMARK),
    (
        "node --no-liftoff --no-wasm-tier-up bench/parts/run.mjs ...",
        BENCHMARK,
    ),
    (
        "openssl genpkey",
        Not("says where the keys of the tests are from"),
    ),
    (
        "openssl rand -hex 24",
        Not("a token is chance; every token of its form is taken"),
    ),
    (
        "pip install cargo-zigbuild==0.24.1 ziglang==0.17.1",
        By("every_build_takes_the_same_zig"),
    ),
    (
        "sha256sum -c SHA256SUMS",
        By("a_release_is_complete_and_each_file_runs_anywhere"),
    ),
    ("ssh -L 9902:127.0.0.1:9902", Not("needs another machine")),
];

/// Our own programs.
const OWN: &[&str] = &["callback-guard", "callback-guard-inbox"];

/// What begins a command. A program's name alone is no command.
const PROGRAMS: &[&str] = &[
    "apt-get",
    "callback-guard",
    "callback-guard-inbox",
    "cargo",
    "cosign",
    "curl",
    "date",
    "docker",
    "envoy",
    "git",
    "helm",
    "install",
    "kubectl",
    "node",
    "npm",
    "openssl",
    "pip",
    "psql",
    "python3",
    "redis-cli",
    "redis-server",
    "sha256sum",
    "skopeo",
    "sqlite3",
    "ssh",
    "webdis",
];

fn files(end: &str) -> BTreeMap<String, String> {
    page::files(end).unwrap()
}

/// All sources, by their paths.
static SOURCES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| files(".rs"));

fn pages() -> BTreeMap<String, String> {
    let mut pages = page::all().unwrap();
    // What `docs/benchmarks/README.md` is made from.
    pages.remove("bench/report.md");
    assert!(pages.len() > 20, "{}", pages.len());
    pages
}

/// A test, and where it is.
struct Test {
    /// As the filter of `cargo test` sees it, with the folders before it.
    path: String,
    file: &'static str,
    source: &'static str,
}

/// All tests, by name.
fn tests() -> BTreeMap<String, Vec<Test>> {
    let mut tests: BTreeMap<String, Vec<Test>> = BTreeMap::new();
    for (file, source) in &*SOURCES {
        let modules = file.trim_end_matches(".rs").replace('/', "::");
        for part in source.split("#[test]\n").skip(1) {
            let name = part.split("fn ").nth(1).unwrap_or_default();
            let name = name.split('(').next().unwrap_or_default().to_owned();
            let path = format!("{}::{name}", modules.replace("::mod", ""));
            tests
                .entry(name)
                .or_default()
                .push(Test { path, file, source });
        }
    }
    assert!(tests.len() > 400, "{}", tests.len());
    tests
}

/// The text between the fences, with what is in them left out.
fn prose(text: &str) -> String {
    let mut is_fenced = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What the prose has between backticks, on one line each.
fn inline(text: &str) -> Vec<String> {
    let prose = prose(text);
    let parts = prose.split('`').skip(1).step_by(2);
    let words = parts.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    words.collect()
}

/// A command without the variables before it.
fn without_variables(command: &str) -> &str {
    let mut rest = command;
    while let Some((word, more)) = rest.split_once(' ') {
        match word.split_once('=') {
            Some((name, _)) if name.bytes().all(|c| c == b'_' || c.is_ascii_uppercase()) => {
                rest = more;
            }
            _ => break,
        }
    }
    rest
}

/// Whether something between backticks is a command.
fn is_command(text: &str) -> bool {
    let command = without_variables(text);
    let (first, has_more) = command
        .split_once(' ')
        .map_or((command, false), |(first, _)| (first, true));
    let is_script = first.contains('/') && places::repository().join(first).is_file();
    has_more && (PROGRAMS.contains(&first) || is_script && is_executable(first))
}

fn is_executable(script: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;

    let metadata = fs::metadata(places::repository().join(script)).unwrap();
    metadata.permissions().mode() & 0o111 != 0
}

fn is_shell(block: &Block) -> bool {
    ["sh", "bash", "console"].contains(&block.language.as_str())
}

/// Whether it says how a command of our own is used, and is none to be typed as it is.
fn is_usage(command: &str) -> bool {
    let words: Vec<&str> = command.split(' ').collect();
    let is_placeholder = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
    OWN.contains(&words[0]) && (words.len() == 2 || words.iter().any(is_placeholder))
}

/// All commands of blocks that are marked.
fn marked(pages: &BTreeMap<String, String>) -> BTreeSet<String> {
    let blocks = pages.values().flat_map(|text| blocks(text));
    let marked = blocks.filter(|block| is_shell(block) && block.run_by.is_some());
    marked.flat_map(|block| block.commands()).collect()
}

/// The commands that no mark covers, with the pages that print them.
fn unmarked() -> BTreeMap<String, Vec<String>> {
    let pages = pages();
    let marked = marked(&pages);
    let mut unmarked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (page, text) in &pages {
        let blocks = blocks(text);
        let blocks = blocks
            .iter()
            .filter(|block| is_shell(block) && block.run_by.is_none());
        let printed = blocks.flat_map(Block::commands);
        let inline = inline(text)
            .into_iter()
            .filter(|text| is_command(text) && !is_usage(text));
        for command in printed.chain(inline.filter(|command| !marked.contains(command))) {
            unmarked.entry(command).or_default().push(page.clone());
        }
    }
    unmarked
}

#[test]
fn every_command_is_run_by_a_test_or_says_why_not() {
    let unmarked = unmarked();
    let listed: BTreeSet<&str> = UNMARKED.iter().map(|(command, _)| *command).collect();
    assert_eq!(listed.len(), UNMARKED.len(), "a command is listed twice");
    let missing: Vec<_> = unmarked
        .iter()
        .filter(|(command, _)| !listed.contains(command.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "neither marked with `<!-- run: TEST -->` nor in UNMARKED: {missing:#?}"
    );
    let gone: Vec<_> = listed
        .iter()
        .filter(|command| !unmarked.contains_key(**command))
        .collect();
    assert!(gone.is_empty(), "in UNMARKED, and in no page: {gone:#?}");
}

#[test]
fn every_mark_names_a_test_that_takes_the_block_from_the_page() {
    let tests = tests();
    let mut count = 0;
    for (page, text) in pages() {
        let lines = text.lines().map(str::trim_start);
        let marks = lines.filter(|line| line.starts_with("<!-- run: ")).count();
        let marked: Vec<_> = blocks(&text)
            .into_iter()
            .filter_map(|block| block.run_by)
            .collect();
        assert_eq!(
            marks,
            marked.len(),
            "{page}: a mark is not on the line before a block"
        );
        for name in marked {
            let found = tests.get(&name);
            let found = found.unwrap_or_else(|| panic!("{page}: there is no test `{name}`"));
            let quoted = [format!("\"{page}\""), format!("\"{name}\"")];
            assert!(
                found
                    .iter()
                    .any(|test| quoted.iter().all(|it| test.source.contains(it))),
                "{page}: `{name}` in {} does not take its block from the page",
                found[0].file
            );
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_configuration_has_a_test() {
    let tests = tests();
    assert!(tests.contains_key(SHOWN_JSON));
    for (page, text) in pages() {
        for block in blocks(&text) {
            let place = format!("{page}:{}: {}", block.line, block.language);
            match block.language.as_str() {
                "sh" | "bash" | "console" | "json" => {}
                // What is sent, and pictures.
                "http" | "text" => {}
                "yaml" => assert!(block.run_by.is_some(), "{place} without a mark"),
                _ => panic!("{place}: a language that no test runs"),
            }
        }
    }
}

/// A test runs under another name; a step goes out of `.ci/run`: then the table is wrong.
#[test]
fn what_is_run_elsewhere_is_run_there() {
    let tests = tests();
    let read = |name: &str| fs::read_to_string(places::repository().join(name)).unwrap();
    let ci = read(".ci/run")
        .replace(" --locked", "")
        .replace("\"$0\"", ".ci/run");
    let workflows = read(".github/workflows/ci.yml") + &read(".github/workflows/release.yml");
    for (command, unmarked) in UNMARKED {
        match unmarked {
            Step => assert!(
                ci.lines().any(|line| {
                    let step = line.split_once("step ").map(|(_, step)| step);
                    let rest = step.and_then(|step| step.strip_prefix(command));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" --"))
                }),
                "no step of .ci/run: {command}"
            ),
            Workflow => assert!(
                workflows
                    .lines()
                    .any(|line| line.trim_end().ends_with(command)),
                "in no workflow: {command}"
            ),
            By(test) => assert!(tests.contains_key(*test), "{command}: no test `{test}`"),
            Not(reason) => assert!(reason.len() > 10, "{command}"),
        }
    }
}

/// What is not run word for word names files, packages, tests and flags that exist.
#[test]
fn what_is_not_run_could_be() {
    let tests = tests();
    let sources = files("Cargo.toml");
    let help = Help::default();
    for (command, pages) in unmarked() {
        let plain = without_variables(&command);
        let words: Vec<&str> = plain.split(' ').take_while(|word| *word != ">").collect();
        let place = || format!("{}: {command}", pages.join(", "));
        match words[0] {
            "cargo" => assert_cargo(&words[1..], &tests, &sources, &help, &place()),
            name @ ("callback-guard" | "callback-guard-inbox") => {
                help.assert_accepts(name, &words[1..], &place());
            }
            script if script.contains('/') => {
                assert!(places::repository().join(script).is_file(), "{}", place());
            }
            _ => {}
        }
        for file in named_files(&words) {
            let folders = pages.iter().map(|page| Path::new(page).parent().unwrap());
            let mut folders = folders.chain([Path::new("")]);
            assert!(
                folders.any(|folder| places::repository().join(folder).join(file).exists()),
                "{}: no {file}",
                place()
            );
        }
    }
}

/// The files of the repository that a command reads.
fn named_files<'a>(words: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let pairs = words.windows(2).filter_map(|pair| match *pair {
        [
            "--filename" | "--values" | "--file" | "--manifest-path" | "node",
            file,
        ] => Some(file),
        _ => None,
    });
    pairs
        .filter(|file| !file.starts_with('-'))
        .collect::<Vec<_>>()
        .into_iter()
}

fn assert_cargo(
    words: &[&str],
    tests: &BTreeMap<String, Vec<Test>>,
    manifests: &BTreeMap<String, String>,
    help: &Help,
    place: &str,
) {
    // `.cargo/config.toml` has what these are short for.
    match words {
        ["demo", ..] => return help.assert_accepts("callback-guard", words, place),
        ["callback-guard", rest @ ..] => return help.assert_accepts("callback-guard", rest, place),
        ["bench-guard", rest @ ..] => {
            let source = &SOURCES["bench/src/main.rs"];
            for flag in rest.iter().filter(|word| word.starts_with("--")) {
                let name = flag.trim_start_matches('-').replace('-', "_");
                assert!(
                    source.contains(flag) || source.contains(&name),
                    "{place}: {flag}"
                );
            }
            return;
        }
        _ => {}
    }
    let own: Vec<&str> = words
        .iter()
        .copied()
        .take_while(|word| *word != "--")
        .collect();
    let mut filters = own[1..].iter();
    while let Some(word) = filters.next() {
        let exists = match *word {
            "-p" | "--package" => {
                let name = format!("\nname = \"{}\"\n", filters.next().unwrap());
                manifests.values().any(|text| text.contains(&name))
            }
            kind @ ("--test" | "--bench" | "--example") => {
                let name = filters.next().unwrap();
                let folder = match kind {
                    "--test" => "tests",
                    "--bench" => "benches",
                    _ => "examples",
                };
                let ends = ["{}.rs", "{}/main.rs"]
                    .map(|end| format!("{folder}/{}", end.replace("{}", name)));
                SOURCES
                    .keys()
                    .any(|file| ends.iter().any(|end| file.ends_with(end.as_str())))
                    || manifests.values().any(|text| {
                        text.contains(&format!("[[{}]]\nname = \"{name}\"", &kind[2..]))
                    })
            }
            "--manifest-path" | "--target" | "--config" => filters.next().is_some(),
            "--open" | "--release" => true,
            filter if ["test", "test-long", "test-services"].contains(&own[0]) => tests
                .values()
                .flatten()
                .any(|test| test.path.contains(filter)),
            "deny" | "fuzz" | "run" | "check" | "build" | "doc" | "bench" => true,
            _ => false,
        };
        assert!(exists, "{place}: {word}");
    }
}

/// What is said of our own programs, with or without their name before the command: `check FILE`.
#[test]
fn the_programs_have_the_commands_and_flags_that_pages_name() {
    let help = Help::default();
    let known: Vec<(&str, Vec<String>)> =
        OWN.iter().map(|own| (*own, help.commands(own))).collect();
    let mut count = 0;
    for (page, text) in pages() {
        let (mine, others) = match page.contains("inbox") {
            true => (&known[1], &known[0]),
            false => (&known[0], &known[1]),
        };
        for text in inline(&text) {
            let words: Vec<&str> = text.split(' ').collect();
            let place = format!("{page}: {text}");
            if OWN.contains(&words[0]) && words.len() > 1 {
                help.assert_accepts(words[0], &words[1..], &place);
            } else if mine.1.iter().any(|name| name == words[0]) {
                help.assert_accepts(mine.0, &words, &place);
            } else if words.len() > 1 && others.1.iter().any(|name| name == words[0]) {
                help.assert_accepts(others.0, &words, &place);
            } else if page == "docs/inbox.md" && words[0].starts_with("--") {
                let helps = mine.1.iter().map(|command| help.of(mine.0, command));
                assert!(
                    helps.into_iter().any(|help| help.contains(words[0])),
                    "{place}"
                );
            } else {
                continue;
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// What the programs say of their commands.
#[derive(Default)]
struct Help(RefCell<BTreeMap<(String, String), String>>);

impl Help {
    /// What a program says of one of its commands; or of itself.
    fn of(&self, name: &str, command: &str) -> String {
        let key = (name.to_owned(), command.to_owned());
        let mut known = self.0.borrow_mut();
        let help = known.entry(key).or_insert_with(|| {
            let path = match name {
                "callback-guard" => program::built("callback-guard-cli", name, false, &|_| {}),
                _ => program::built(name, name, false, &|_| {}),
            };
            let words = command.split(' ').filter(|word| !word.is_empty());
            let mut program = Command::new(path.unwrap());
            let output = program.args(words).arg("--help").output().unwrap();
            assert!(output.status.success(), "{name} has no command `{command}`");
            String::from_utf8(output.stdout).unwrap()
        });
        help.clone()
    }

    /// The names of a program's commands.
    fn commands(&self, name: &str) -> Vec<String> {
        let help = self.of(name, "");
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let lines = lines.take_while(|line| !line.is_empty());
        let names = lines.filter_map(|line| line.split_whitespace().next());
        let names: Vec<_> = names.map(str::to_owned).collect();
        assert!(names.len() > 5, "{help}");
        names
    }

    /// The command exists, and has these flags.
    #[track_caller]
    fn assert_accepts(&self, name: &str, words: &[&str], place: &str) {
        if words.is_empty() {
            return;
        }
        let help = self.of(name, words[0]);
        let words = words
            .iter()
            .flat_map(|word| word.split(['[', ']', '|', '\\']));
        for flag in words.filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap();
            assert!(help.contains(flag), "{place}: {flag}");
        }
    }
}

/// The name of a test: a sentence. No field and no option is that long.
fn is_test_name(word: &str) -> bool {
    let is_snake = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    word.bytes().all(is_snake) && word.matches('_').count() >= 5
}

#[test]
fn every_claim_names_tests_that_exist() {
    let tests = tests();
    for (page, text) in pages() {
        for word in inline(&text) {
            let claims = ["README.md", "SECURITY.md"].contains(&&*page);
            if claims && is_test_name(&word) {
                assert!(
                    tests.contains_key(&word),
                    "{page}: there is no test `{word}`"
                );
            } else if ["tests/", "core/", "deploy/"]
                .iter()
                .any(|it| word.starts_with(it))
            {
                let path = word.split(' ').next().unwrap();
                let path = places::repository().join(path);
                assert!(path.exists(), "{page}: there is no `{word}`");
            }
        }
    }
    let security = &pages()["SECURITY.md"];
    let table = security.split("## What each promise rests on").nth(1);
    let table = table.unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut count = 0;
    for row in rows {
        let shown_by = row.rsplit('|').nth(1).unwrap();
        assert!(
            inline(shown_by).iter().any(|word| is_test_name(word)),
            "no test is named: {row}"
        );
        count += 1;
    }
    assert!(count >= 10, "{count} rows");
}

/// The links of a page that lead to somewhere in the repository.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    // Between backticks there is none.
    let plain: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let targets = plain
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap());
    let targets =
        targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    targets.map(str::to_owned).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let prose = prose(text);
    for line in prose.lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(again);
        let free = names.find(|name| !anchors.contains(name)).unwrap();
        anchors.insert(free);
    }
    anchors
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut count = 0;
    for (page, text) in &pages {
        for link in links(text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(page).parent().unwrap();
            let target = match file {
                "" => PathBuf::from(page),
                file => folder.join(file),
            };
            let target = places::repository().join(target);
            assert!(target.exists(), "{page}: {link}: there is no such file");
            if !anchor.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&text).contains(anchor),
                    "{page}: {link}: there is no such heading"
                );
            }
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}
