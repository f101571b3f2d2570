//! `docs/presets.md`: the tables in it are made from the presets, and its examples are tried.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::{Algorithm, native};
use callback_guard_core::verdict::Code;
use serde_json::{Value, json};

use super::{SECRET, algorithm, bounds, check, entry, parameters, secret, table, texts};
use crate::support::{NOW, Request, private_key};

/// The table of `docs/presets.md`, and a source to copy for those that need more than a secret.
fn document() -> String {
    let mut table_text = String::from(
        "| preset | sender | where | signed, and how | time accepted, s | an event is named by |\n\
         |---|---|---|---|---|---|\n",
    );
    let mut replies = String::new();
    let mut examples = String::new();
    for entry in table() {
        let names = texts(&entry["names"]);
        let (first, source) = (&names[0], entry["source"].as_str().unwrap());
        let time = match bounds(first) {
            Some((past, future)) => format!("-{past} to +{future}"),
            None => "not signed".to_owned(),
        };
        let signature = &entry["signature"];
        let (signed, id) = match signature.is_null() {
            false => {
                let algorithm = algorithm(entry).name();
                let signed = message(&signature["message"]);
                let encoding = signature["value"]["encoding"].as_str().unwrap();
                (
                    format!("{signed}, {algorithm}, {encoding}"),
                    &signature["id"],
                )
            }
            true => ("nothing: a token".to_owned(), &entry["token"]["id"]),
        };
        let sender = entry["sender"].as_str().unwrap();
        let mark = match &entry["unconfirmed"] {
            Value::Null => String::new(),
            Value::String(what) => format!(" *(unconfirmed: {what})*"),
            _ => " *(unconfirmed)*".to_owned(),
        };
        table_text += &format!(
            "| `{}` | [{sender}]({source}){mark} | {} | {signed} | {time} | {} |\n",
            names.join("`, `"),
            places(entry),
            event(entry, id)
        );
        if let Some(reply) = entry["reply"].as_str() {
            replies += &format!("| `{}` | {reply} |\n", names.join("`, `"));
        }
        let asked = parameters(entry);
        if first == "suno" || asked != json!({}) || algorithm(entry).is_asymmetric() {
            examples += &example(first, &asked, algorithm(entry));
        }
    }
    format!(
        "{table_text}\n## Where the reply means something\n\nMost senders read the status alone. These read \
         more; the guard sends the upstream's reply on as it is, and answers a duplicate with 200 and \
         `{{\"status\":\"duplicate\"}}`.\n\n| preset | what the reply means |\n|---|---|\n{replies}\n## Sources to \
         copy\n\nThose that need more than a secret, and `suno`; for the rest change the name.\n{examples}"
    )
}

/// Where signature, token and timestamp are.
fn places(entry: &Value) -> String {
    let (value, token) = (&entry["signature"]["value"], &entry["token"]);
    let mut places: Vec<String> = Vec::new();
    for at in [value, token, &entry["signature"]["timestamp"]] {
        match &at["header"] {
            Value::String(name) if at["numbered"] == true => places.push(format!("`{name}1` …")),
            Value::String(name) => places.push(format!("`{name}`")),
            names => places.extend(texts(names).iter().map(|name| format!("`{name}`"))),
        }
        if let Some(name) = at["query"].as_str() {
            places.push(format!("`?{name}=`"));
        }
        if let Some(pointer) = at["pointer"].as_str() {
            places.push(format!("body `{pointer}`"));
        }
        if at["basic"] == true {
            places.push("`authorization` (user and password)".to_owned());
        }
    }
    places.join(", ")
}

/// What tells one event from another.
fn event(entry: &Value, id: &Value) -> String {
    let pointers = texts(&id["pointers"]);
    let is_form = entry["signature"]["message"]
        .to_string()
        .contains("form_sorted");
    let mut named = match (id["header"].as_str(), pointers.as_slice()) {
        (Some(header), _) => format!("`{header}`"),
        (None, []) if is_form => "SHA-256 of what is signed".to_owned(),
        (None, []) => "SHA-256 of the body".to_owned(),
        (None, [only]) => format!("`{only}`"),
        (None, several) => format!("the first of `{}`", several.join("`, `")),
    };
    let parts = entry["key"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let parts = parts.iter().filter_map(|part| {
        let part = part["pointer"].as_str().or(part["header"].as_str())?;
        Some(format!("`{part}`"))
    });
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        named += &format!("; and {}", parts.join(", "));
    }
    named
}

fn example(name: &str, asked: &Value, algorithm: Algorithm) -> String {
    let variable = name.to_ascii_uppercase().replace('-', "_");
    let mut lines = vec![
        format!(r#"  "name": "{name}""#),
        format!(r#"  "match": {{ "path": "/callbacks/{name}" }}"#),
        format!(r#"  "preset": "{name}""#),
    ];
    for name_of_parameter in asked.as_object().into_iter().flat_map(|asked| asked.keys()) {
        let value = match name_of_parameter.as_str() {
            "public_url" => "https://hooks.example.com".to_owned(),
            "verify_token" => "a token that nobody can guess".to_owned(),
            _ => format!("https://hooks.example.com/callbacks/{name}"),
        };
        lines.push(format!(
            r#"  "parameters": {{ "{name_of_parameter}": "{value}" }}"#
        ));
    }
    lines.push(match algorithm.is_asymmetric() {
        true => format!(r#"  "public_keys": [{{ "env": "{variable}_PUBLIC_KEY" }}]"#),
        false => format!(r#"  "secrets": [{{ "env": "{variable}_SECRET" }}]"#),
    });
    format!(
        "\n### {name}\n\n```json\n{{\n{}\n}}\n```\n",
        lines.join(",\n")
    )
}

fn message(parts: &Value) -> String {
    let part = |part: &Value| {
        let word = |name: &str| part[name].as_str();
        if let Some(text) = word("literal") {
            return text.replace('\n', "\\n").replace('|', "\\|");
        }
        if let Some(name) = word("parameter") {
            let target = if part["target"] == true {
                "{path and query}"
            } else {
                ""
            };
            return format!("{{{name}}}{target}");
        }
        for kind in ["header", "query"] {
            if let Some(name) = word(kind) {
                return format!("{{{kind} {name}}}");
            }
        }
        if let Some(pointer) = word("pointer") {
            return format!("{{{}}}", pointer.rsplit('/').next().unwrap());
        }
        let (kind, _) = part.as_object().unwrap().iter().next().unwrap();
        format!("{{{}}}", kind.replace('_', " "))
    };
    let text: String = parts.as_array().unwrap().iter().map(part).collect();
    format!("`{text}`")
}

/// What people look for: each name, sender's product and header, with its presets.
fn index() -> String {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut headers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in table() {
        let presets = texts(&entry["names"]);
        let list = |presets: &[String]| format!("`{}`", presets.join("`, `"));
        for name in &presets {
            names.insert(name.clone(), list(std::slice::from_ref(name)));
        }
        for product in entry["products"]
            .as_str()
            .into_iter()
            .flat_map(|text| text.split(", "))
        {
            let twice = names.insert(product.to_owned(), list(&presets));
            assert_eq!(twice, None, "{product}");
        }
        for header in headers_of(entry) {
            headers
                .entry(header)
                .or_default()
                .extend(presets.iter().cloned());
        }
    }
    let mut rows: Vec<(String, String)> = names.into_iter().collect();
    rows.sort_by_key(|(name, _)| name.to_lowercase());
    let names: String = rows
        .iter()
        .map(|(name, presets)| format!("| {name} | {presets} |\n"))
        .collect();
    let headers = headers.into_iter().map(|(header, presets)| {
        let presets: Vec<String> = presets.into_iter().collect();
        format!("| `{header}` | `{}` |\n", presets.join("`, `"))
    });
    let headers: String = headers.collect();
    format!(
        "### By name\n\n| sender or product | preset |\n|---|---|\n{names}\n### By header\n\nA header that a \
         callback has and what may have sent it.\n\n| header | presets |\n|---|---|\n{headers}"
    )
}

/// Every header that a preset reads.
fn headers_of(entry: &Value) -> Vec<String> {
    let signature = &entry["signature"];
    let mut headers = Vec::new();
    for at in [
        &signature["value"],
        &signature["timestamp"],
        &signature["id"],
        &entry["token"],
        &entry["token"]["id"],
    ] {
        match &at["header"] {
            Value::String(name) if at["numbered"] == true => headers.push(format!("{name}1")),
            Value::String(name) => headers.push(name.clone()),
            names => headers.extend(texts(names)),
        }
        if at["basic"] == true {
            headers.push("authorization".to_owned());
        }
    }
    let lists = [&signature["message"], &entry["key"]];
    let parts = lists.into_iter().filter_map(Value::as_array).flatten();
    headers.extend(
        parts
            .filter_map(|part| part["header"].as_str())
            .map(str::to_owned),
    );
    let rules = entry["challenge"].as_array();
    let rules = rules.into_iter().flatten();
    headers.extend(
        rules
            .filter_map(|rule| rule["when"]["header"].as_str())
            .map(str::to_owned),
    );
    headers
}

/// Brings what is between `<!-- name -->` and `<!-- /name -->` up to date where it is blessed.
fn hold(name: &str, made: &str) -> String {
    // Tests run at the same time, and each blesses its own part of the file.
    static WRITING: Mutex<()> = Mutex::new(());
    let _one = WRITING.lock().unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/presets.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, after) = rest.split_once(&format!("<!-- /{name} -->")).unwrap();
    let expected = format!("{before}<!-- {name} -->\n{made}<!-- /{name} -->{after}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, &expected).unwrap();
    } else {
        assert!(
            text == expected,
            "run: BLESS=1 cargo test -p callback-guard-core --test it presets"
        );
    }
    expected
}

/// What the fenced text after a heading of the document is, by its language.
fn fenced<'d>(section: &'d str, language: &str) -> &'d str {
    let (_, rest) = section.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

/// The keys of the worked examples, by the end of their variables.
fn example_key(variable: &str) -> Option<Vec<u8>> {
    let spki = private_key(Algorithm::Ed25519).public_spki().unwrap();
    let raw = STANDARD.decode(&spki).unwrap();
    match variable.rsplit('_').next() {
        Some("SECRET") => Some(SECRET.into()),
        Some("KEY") => Some(hex::encode(&raw[raw.len() - 32..]).into()),
        _ => None,
    }
}

fn example_policy(example: &str) -> Policy {
    let source: Value = serde_json::from_str(fenced(example, "json")).unwrap();
    let text = json!({ "sources": [source] }).to_string();
    let mut policy = config::parse(text.as_bytes(), &example_key)
        .unwrap_or_else(|error| panic!("{error}: {text}"));
    policy.host_verify = native::verify;
    policy
}

/// The three worked examples: each makes the callback that is printed below it, which the guard takes, and
/// with any byte of its body or its target changed it does not.
#[test]
fn the_worked_examples_sign_and_verify() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/presets.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("## A sender that is not here").unwrap();
    let examples: Vec<&str> = section.split("\n### Example: ").skip(1).collect();
    assert_eq!(examples.len(), 3);
    for (number, example) in examples.into_iter().enumerate() {
        let shown = fenced(example, "http");
        let target = shown.split(' ').nth(1).unwrap();
        let body = shown.split_once("\n\n").unwrap().1.trim_end();
        let request = Request::genuine_at(&example_policy(example), target, body, NOW);
        let mut made = format!("POST {target} HTTP/1.1\nhost: hooks.example.com\n");
        for (name, value) in &request.headers {
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            if !name.starts_with(':') {
                made += &format!("{name}: {value}\n");
            }
        }
        let made = format!("```http\n{made}\n{body}\n```\n");
        hold(&format!("example {}", number + 1), &made);
        check(example_policy(example), &request, NOW, Code::Forwarded);
        for index in 0..request.body.len() {
            let mut changed = request.clone();
            changed.body[index] ^= 1;
            check(
                example_policy(example),
                &changed,
                NOW,
                Code::SignatureMismatch,
            );
        }
        let changed = request.with(":method", "PUT");
        check(
            example_policy(example),
            &changed,
            NOW,
            Code::MethodNotAllowed,
        );
    }
}

#[test]
fn the_document_says_what_the_table_says() {
    hold("index", &index());
    let expected = hold("table", &document());
    // What is there to be copied is accepted.
    let mut examples = 0;
    for example in expected.split("```json\n{\n").skip(1) {
        let (example, _) = example.split_once("```").unwrap();
        let source: Value = serde_json::from_str(&format!("{{{example}")).unwrap();
        let key = match source["preset"].as_str() {
            Some(name) if algorithm(entry(name)).is_asymmetric() => {
                let entry = entry(name);
                let spki = private_key(algorithm(entry)).public_spki().unwrap();
                let raw = STANDARD.decode(&spki).unwrap();
                let raw = &raw[raw.len() - 32..];
                match entry["public_key"]["encoding"].as_str() {
                    Some("hex") => hex::encode(raw),
                    Some("base64") => STANDARD.encode(raw),
                    _ => spki,
                }
            }
            Some(name) => secret(entry(name)).to_owned(),
            None => String::new(),
        };
        let text = json!({ "sources": [source.clone()] }).to_string();
        let environment = |name: &str| match source["preset"].is_null() {
            true => example_key(name),
            false => Some(key.clone().into_bytes()),
        };
        config::parse(text.as_bytes(), &environment)
            .unwrap_or_else(|error| panic!("{error}: {text}"));
        examples += 1;
    }
    assert!(examples >= 15, "{examples}");
}
