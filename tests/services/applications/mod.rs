//! Real applications behind the guard: what they would do with a request, and what they read in a body.
//!
//! Express 4 and 5, FastAPI, Django with REST framework, and Go's net/http with encoding/json, each as
//! its own documentation has it, behind a real Envoy with the repository's `envoy.yaml`.

mod programs;

use callback_guard_harness::client::{self, RawConnection};
use callback_guard_harness::{Request, Response};
use programs::{Application, Framework};
use serde_json::{Value, json};

use callback_guard_support::{Change as _, Guarded, event, signed, spellings};

/// The path that the guard and each application know.
const PATH: &str = "/callbacks/suno";

/// Every spelling of the path by one trick or two; and its own, which comes first.
fn table() -> Vec<String> {
    let mut paths = vec![PATH.to_owned()];
    paths.extend(spellings::sets(2).map(|set| spellings::spelled(PATH, set)));
    paths.extend(
        [
            "/callbacks/suno?x=/../..",
            "/callbacks/suno#x",
            "http://app.example/callbacks/suno",
            "http://evil//Callbacks/suno/",
            "callbacks/suno",
            "\\callbacks\\suno",
        ]
        .map(str::to_owned),
    );
    paths
}

/// An unsigned callback to `path`, byte by byte; nothing where no whole answer comes.
fn send_unsigned(address: std::net::SocketAddr, path: &str) -> Option<Response> {
    let body = event("unsigned").1;
    let bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: app.example\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let mut connection = RawConnection::open(address).ok()?;
    connection.write(bytes).ok()?;
    connection.read_response().ok().flatten()
}

#[test]
fn no_unsigned_spelling_of_the_path_makes_an_application_run_its_handler() {
    let mut taken = Vec::new();
    for framework in Framework::ALL {
        let application = Application::start(framework);
        // What the application takes for the path when nobody stands before it.
        for path in table() {
            let before = application.runs();
            send_unsigned(application.address, &path);
            if application.runs() > before {
                taken.push((framework, path));
            }
        }
        let runs = application.runs();
        assert!(runs > 0, "{framework:?} does not know {PATH}");
        for normalizes in [true, false] {
            let guarded = Guarded::builder()
                .configuration(|configuration| configuration["unmatched"] = json!("pass"))
                .application_at(application.address)
                .render(|render| {
                    render.connection_manager(|manager| {
                        if !normalizes {
                            manager["normalize_path"] = json!(false);
                            manager["merge_slashes"] = json!(false);
                            manager["path_with_escaped_slashes_action"] = json!("KEEP_UNCHANGED");
                        }
                    })
                })
                .start();
            for path in table() {
                let response = send_unsigned(guarded.address(), &path);
                let seen = application.runs();
                assert_eq!(seen, runs, "{framework:?} ran for {path}: {response:?}");
            }
            // Other requests pass: the application answers them itself.
            for (path, status) in [("/runs", 200), ("/callbacks/other", 404)] {
                let response = guarded.send(&Request::get(path));
                assert_eq!(response.status, status, "{framework:?} {path}");
                assert_eq!(response.header("x-callback-guard"), None);
            }
            guarded.assert_alive();
        }
    }
    // The table is no straw man: among its spellings are some that real applications take.
    let tricky = |framework| {
        let is = |(one, path): &&(Framework, String)| *one == framework && path != PATH;
        taken.iter().filter(is).count()
    };
    assert!(
        tricky(Framework::Express4) > 3 && tricky(Framework::Express5) > 3,
        "{taken:?}"
    );
}

/// Bodies about the event `a`; a reader that is not strict finds another in some of them.
fn bodies() -> Vec<(&'static str, &'static str)> {
    let json = "application/json";
    let mut bodies: Vec<(&str, &str)> = [
        r#"{"data":{"task_id":"a","video_url":"https://good.example/a"}}"#,
        r#"{"data":{"t\u0061sk_id":"a"}}"#,
        r#"{"d\u0061ta":{"task_id":"\u0061"}}"#,
        r#" {"other":{"Task_ID":"b","task_id":"c"},"data":{"task_id":"a"}} "#,
        r#"{"data":{"task_id":"a","task_id":"b"}}"#,
        r#"{"data":{"task_id":"a","t\u0061sk_id":"b"}}"#,
        r#"{"data":{"task_id":"a","Task_ID":"b"}}"#,
        r#"{"data":{"Task_ID":"b","task_id":"a"}}"#,
        "{\"data\":{\"task_id\":\"a\",\"ta\u{17f}k_id\":\"b\"}}",
        "{\"data\":{\"task_id\":\"a\",\"tas\u{212a}_id\":\"b\"}}",
        r#"{"data":{"task_id":"a","tas\u212a_id":"b"}}"#,
        r#"{"data":{"task_id":"a","\u0054ask_id":"b"}}"#,
        r#"{"data":{"task_id":"a"},"Data":{"task_id":"b"}}"#,
        r#"{"DATA":{"task_id":"b"},"data":{"task_id":"a"}}"#,
        "{\"data\":{\"task_id\":\"a\"},\"dat\u{e4}\":{\"task_id\":\"b\"}}",
        r#"{"data":{"task_id":"a","video_url":"https://good.example","Video_URL":"https://evil.example"}}"#,
        "{\"data\":{\"task_id\":\"a\",\"video_ur\u{2113}\":\"https://evil.example\"}}",
        r#"{"data":{"task_id":"a","__proto__":{"task_id":"b"},"constructor":{}}}"#,
        r#"{"__proto__":{"data":{"task_id":"b"}},"data":{"task_id":"a"}}"#,
        r#"{"data":{"task_id":"a"}}{"data":{"task_id":"b"}}"#,
        r#"{"data":{"task_id":"a"},}"#,
        r#"{"data":{"task_id":"a"}/**/}"#,
        r#"{"data":{"task_id":"a"},"x":NaN}"#,
        r#"{"data":{"task_id":"a"},"x":1e999}"#,
        r#"{"data":{"task_id":"a"},"x":"\ud800"}"#,
        r#"{"data":{"task_id":"a"},"x":"\ud834\udd1e"}"#,
        "\u{feff}{\"data\":{\"task_id\":\"a\"}}",
        r#"{"data":{"task_id":"a"},"x":123456789012345678901234567890}"#,
    ]
    .map(|body| (json, body))
    .to_vec();
    let utf7 = r#"{"data":{"task_id":"a"},"title":"x+ACI-,+ACI-data+ACI-:+AHsAIg-task_id+ACI-:+ACI-b+ACIAfQ-,+ACI-y+ACI-:+ACI-"}"#;
    for content_type in [
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
        "Application/JSON ; Charset=utf8; x=\"a;b\"",
        "application/json; x=y",
        "application/json; charset=utf-7",
        "application/json; charset=\"utf-7\"",
        "application/json; charset = utf-7",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json; x=\"; charset=utf-7\"",
        "application/json; charset*=utf-8''utf-7",
        "application/json; charset=utf-16",
        "application/json, application/json; charset=utf-7",
        "application/cloudevents+json; charset=utf-7",
    ] {
        bodies.push((content_type, utf7));
    }
    bodies
}

#[test]
fn an_application_reads_in_an_accepted_body_what_the_guard_has_read() {
    let members = r#""code":200,"msg":"success","#;
    for framework in Framework::ALL {
        let application = Application::start(framework);
        let guarded = Guarded::builder()
            .configuration(|configuration| {
                let payload = json!({ "allowed_url_hosts": ["good.example"] });
                configuration["sources"][0]["payload"] = payload;
            })
            .application_at(application.address)
            .start();
        let (mut accepted, mut misread) = (0, 0);
        for (number, (content_type, body)) in bodies().into_iter().enumerate() {
            // An id of its own for each, so that none is a duplicate.
            let (id, other) = (format!("a-{number}"), format!("b-{number}"));
            let body = body
                .replacen('{', &format!("{{{members}"), 1)
                .replace("\"a\"", &format!("\"{id}\""))
                .replace("\"\\u0061\"", &format!("\"\\u0061-{number}\""))
                .replace("\"b\"", &format!("\"{other}\""));
            let genuine = signed(&format!(r#"{{"data":{{"task_id":"{id}"}}}}"#));
            let request = genuine
                .replace("content-type", content_type)
                .body(body.clone());
            let direct = client::send(application.address, &request.clone()).unwrap();
            if direct.status == 200 && direct.json().is_ok_and(|read| read["id"] == other) {
                misread += 1;
            }
            let response = guarded.send(&request);
            if response.header("x-callback-guard").is_some() {
                let codes = [400, 401, 415, 422];
                assert!(
                    codes.contains(&response.status),
                    "{framework:?} {body} {response:?}"
                );
                continue;
            }
            accepted += 1;
            // An application may be stricter than the guard, and refuse.
            if response.status != 200 {
                continue;
            }
            let read = response.json().unwrap();
            let case = format!("{framework:?} {content_type} {body}");
            assert_eq!(read["verified"], json!(id), "{case}");
            assert_eq!(read["id"], json!(id), "{case}");
            let url = &read["url"];
            let is_good = |url: &Value| {
                url.is_null()
                    || url
                        .as_str()
                        .is_some_and(|url| url.starts_with("https://good.example"))
            };
            assert!(is_good(url), "{case}: {url}");
        }
        assert!(accepted >= 10, "{framework:?}: {accepted}");
        // Without the guard some of them are read as the other event.
        assert!(misread > 0, "{framework:?}");
        guarded.assert_alive();
    }
}
