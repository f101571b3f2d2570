//! `sign`.

use crate::support::{SECRET, file, run, run_with};

const BODY: &str =
    r#"{"code":200,"msg":"m","data":{"task_id":"ee9c2715375b7837f8bb51d641ff5863"}}"#;
const HEADERS: &str = "x-webhook-timestamp: 1769670760
x-webhook-signature: xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=
";

#[test]
fn the_known_answer_from_a_file_and_from_standard_input() {
    let body = file("body.json", BODY);
    let from_file = run(&["sign", "--timestamp", "1769670760", &body.path]);
    assert_eq!((from_file.code, from_file.out.as_str()), (0, HEADERS));
    let variables = [("OTHER_KEY", SECRET)];
    let arguments = [
        "sign",
        "--timestamp",
        "1769670760",
        "--secret-env",
        "OTHER_KEY",
        "-",
    ];
    assert_eq!(run_with(&arguments, &variables, BODY).out, HEADERS);
}

#[test]
fn a_secret_file_loses_one_line_break_and_no_more() {
    let body = file("body.json", BODY);
    for (text, code) in [
        (SECRET.to_owned(), 0),
        (format!("{SECRET}\n"), 0),
        (format!("{SECRET}\r\n"), 0),
        (format!("{SECRET}\n\n"), 2),
        (String::new(), 2),
    ] {
        let secret = file("key", &text);
        let arguments = [
            "sign",
            "--timestamp",
            "1769670760",
            "--secret-file",
            &secret.path,
            &body.path,
        ];
        let run = run_with(&arguments, &[], "");
        assert_eq!(run.code, code, "{text:?}: {}", run.err);
        assert_eq!(run.out == HEADERS, code == 0, "{text:?}");
        assert!(!run.err.contains(SECRET), "{}", run.err);
    }
}

#[test]
fn a_secret_that_is_not_set_says_how_to_give_one() {
    let run = run_with(&["sign", "-"], &[], BODY);
    assert_eq!(run.code, 2);
    assert_eq!(
        run.err,
        "error: environment variable `SUNO_WEBHOOK_KEY` is not set: set it to the secret, or name \
         another with --secret-env, or a file with --secret-file\n"
    );
}

#[test]
fn a_source_of_a_configuration_signs_as_itself() {
    let body = file("body.json", BODY);
    let arguments = [
        "sign",
        "--config",
        "envoy.yaml",
        "--timestamp",
        "1769670760",
        &body.path,
    ];
    assert_eq!(run(&arguments).out, HEADERS);
    let unknown = [
        "sign",
        "--config",
        "envoy.yaml",
        "--source",
        "sumo",
        &body.path,
    ];
    let unknown = run(&unknown);
    assert_eq!(unknown.code, 2);
    assert_eq!(
        unknown.err,
        "error: --source: `sumo` is unknown, expected one of suno\n"
    );
}

#[test]
fn a_body_without_an_id_cannot_be_signed() {
    let run = run_with(&["sign", "-"], &[("SUNO_WEBHOOK_KEY", SECRET)], "{}");
    assert_eq!((run.code, run.out.as_str()), (2, ""));
    assert_eq!(
        run.err,
        "error: it cannot be signed: signature_mismatch: a signed field is missing\n"
    );
}

#[test]
fn curl_is_quoted_for_the_shell() {
    let body = BODY.replace("\"m\"", "\"it's $HOME\"");
    let arguments = [
        "sign",
        "--timestamp",
        "1769670760",
        "--curl",
        "http://h/a?b=1&c=[2]",
        "-",
    ];
    let run = run_with(&arguments, &[("SUNO_WEBHOOK_KEY", SECRET)], &body);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        r#"curl --silent --show-error --include --globoff 'http://h/a?b=1&c=[2]' \
  --header 'content-type: application/json' \
  --header 'x-webhook-timestamp: 1769670760' \
  --header 'x-webhook-signature: xG6/yOyrMyJtUdc1yjmHpKLHSHF3MpzOPa6uxSj3qb4=' \
  --data-raw '{"code":200,"msg":"it'\''s $HOME","data":{"task_id":"ee9c2715375b7837f8bb51d641ff5863"}}'
"#
    );
}

#[test]
fn a_sample_gets_the_id_it_is_told() {
    let arguments = [
        "sign",
        "--kind",
        "suno_wav.success",
        "--id",
        "my_id",
        "--curl",
        "http://h/",
    ];
    let run = run(&arguments);
    assert!(run.out.contains(r#""task_id": "my_id""#), "{}", run.out);
}
