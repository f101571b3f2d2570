//! What the senders' own libraries sign is delivered; what is signed here they accept, and it is delivered.

use std::collections::BTreeMap;

use callback_guard_harness::places;
use serde::Deserialize;
use serde_json::{Value, json};

use super::callback::{Callback, Case};
use super::libraries::{Language, Task};
use super::{now, start};

/// What the libraries of a language can do.
#[derive(Debug, Deserialize)]
struct Listed {
    sign: Vec<Sender>,
    verify: Vec<Sender>,
}

#[derive(Debug, Deserialize)]
struct Sender {
    preset: String,
    library: String,
}

/// What a library has signed.
#[derive(Debug, Deserialize)]
struct Signed {
    headers: BTreeMap<String, String>,
    body: String,
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn listed(language: Language) -> Listed {
    language.install();
    read(language.run(&[Task::list()]).remove(0))
}

fn cases(senders: &[Sender]) -> Vec<Case> {
    senders
        .iter()
        .map(|sender| Case::new(&sender.preset))
        .collect()
}

#[track_caller]
fn check(language: Language) {
    let listed = listed(language);
    let (signing, verifying) = (cases(&listed.sign), cases(&listed.verify));
    let at = now();
    let own: Vec<Callback> = verifying.iter().map(|case| case.signed(at)).collect();
    let tasks = signing.iter().map(|case| Task::sign(case, at));
    let checks = verifying.iter().zip(&own).flat_map(|(case, callback)| {
        let flipped = callback.flipped();
        [callback, &flipped].map(|callback| Task::verify(case, at, callback))
    });
    let tasks: Vec<Task> = tasks.chain(checks).collect();
    let mut answers = language.run(&tasks);
    let verdicts = answers.split_off(signing.len());
    for (case, verdicts) in verifying.iter().zip(verdicts.chunks_exact(2)) {
        assert_eq!(verdicts, [json!(true), json!(false)], "{}", case.preset);
    }
    let sources = signing.iter().chain(&verifying);
    let stack = start(&sources.map(|case| case.source.clone()).collect());
    for (case, answer) in signing.iter().zip(answers) {
        let signed: Signed = read(answer);
        let headers = signed.headers.into_iter().collect();
        case.with(headers, signed.body).check(&stack);
    }
    for callback in &own {
        callback.check(&stack);
    }
}

#[test]
fn the_senders_python_libraries_and_the_guard_agree() {
    check(Language::Python);
}

#[test]
fn the_senders_javascript_libraries_and_the_guard_agree() {
    check(Language::JavaScript);
}

/// `docs/presets.md` says which presets are proved so, and by what.
#[test]
fn the_document_lists_the_senders_with_a_library() {
    let mut proved: BTreeMap<String, String> = BTreeMap::new();
    for language in [Language::Python, Language::JavaScript] {
        let Listed { sign, verify } = listed(language);
        for sender in sign.into_iter().chain(verify) {
            let library = format!("`{}` ({})", sender.library, language.registry());
            let twice = proved.insert(sender.preset, library);
            assert_eq!(twice, None, "a preset is proved once");
        }
    }
    assert!(proved.len() >= 35, "{}", proved.len());
    let line = |(preset, library): (&String, &String)| format!("`{preset}` by {library}");
    let list: Vec<String> = proved.iter().map(line).collect();
    let list = format!("<!-- proved -->\n{}: {}.\n", list.len(), list.join(", "));
    let path = places::repository().join("docs/presets.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- proved -->\n").unwrap();
    let (_, after) = rest.split_once("<!-- /proved -->").unwrap();
    let expected = format!("{before}{list}<!-- /proved -->{after}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text == expected,
        "run: BLESS=1 cargo test-services the_document_lists"
    );
}
