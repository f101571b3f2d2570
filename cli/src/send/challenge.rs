//! `send --challenge`: asks as the sender does before it sends, and checks the answer.
//!
//! What the answer has to be, the filter's own [`Guard`] says, under the same configuration and secret.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use callback_guard_core::guard::{Guard, Inputs, Step};
use callback_guard_core::json::Scratch;
use callback_guard_core::policy::Policy;
use callback_guard_core::request::RequestHead;
use callback_guard_core::sign::{self, Draft};
use callback_guard_core::store::bucket::OwnerToken;
use callback_guard_core::time::UnixMillis;
use callback_guard_core::verdict::Code;
use callback_guard_core::worker::Reply;
use hyper::body::Bytes;
use hyper::{Method, Uri};
use serde_json::{Map, Value};

use super::args::SendArgs;
use crate::http::Client;
use crate::{body, source, time};

/// A request that asks.
struct Question {
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Asks each challenge of the source; what was asked and answered as text, and whether all was right.
///
/// # Errors
///
/// The source has no challenges, or one that cannot be asked.
pub(super) async fn ask(args: &SendArgs, client: &Client) -> anyhow::Result<(String, bool)> {
    let url = args.url.as_ref().context("there is no URL")?.to_string();
    let raw = args.source.raw(Some(&url), true)?;
    let policy = Arc::new(args.source.policy_of(raw.clone())?);
    let rules = source::challenges(&raw);
    if rules.is_empty() {
        bail!("the source has no challenge: its sender asks nothing before it sends");
    }
    let now = args.timestamp.unwrap_or_else(time::now);
    let (mut text, mut all_right) = (String::new(), true);
    for rule in &rules {
        let question = question(rule, &raw, &policy, &url, now)?;
        let expected = expected(&policy, &question, now)?;
        let uri: Uri = question.url.parse().context("the URL of the challenge")?;
        let asked = format!(
            "{} {}",
            question.method,
            uri.path_and_query().map_or("/", |it| it.as_str())
        );
        let answer = client
            .send(
                question.method,
                &uri,
                &question.headers,
                Bytes::from(question.body),
            )
            .await;
        let (said, is_right) = match answer {
            Ok(answer) => {
                let body = String::from_utf8_lossy(&expected.body);
                let has = |name: &str, value: &str| {
                    answer
                        .headers
                        .iter()
                        .any(|(given, it)| given == name && it == value)
                };
                let headers = expected.headers.iter();
                let missing = headers
                    .filter(|(name, _)| !OF_THE_GUARD.contains(&&**name))
                    .find(|(name, value)| !has(name, value));
                match missing {
                    _ if answer.status != expected.status => {
                        let said = format!("{}, expected {}", answer.status, expected.status);
                        (said, false)
                    }
                    _ if answer.body != body => {
                        let said =
                            format!("{}, {:?}, expected {body:?}", answer.status, answer.body);
                        (said, false)
                    }
                    Some((name, value)) => (
                        format!("{} without `{name}: {value}`", answer.status),
                        false,
                    ),
                    None => (format!("{} {body}", answer.status), true),
                }
            }
            Err(error) => (format!("{error:#}"), false),
        };
        let mark = if is_right { "ok" } else { "WRONG" };
        text.push_str(&format!("{mark:6} {asked}: {said}\n"));
        all_right &= is_right;
    }
    Ok((text, all_right))
}

/// What a proxy says for itself, and an application that answers need not.
const OF_THE_GUARD: [&str; 3] = ["content-type", "x-callback-guard", "x-content-type-options"];

/// What `rule` asks for, with fresh values where it takes any.
fn question(
    rule: &Value,
    raw: &Value,
    policy: &Policy,
    url: &str,
    now: UnixMillis,
) -> anyhow::Result<Question> {
    let when = rule.get("when").cloned().unwrap_or_default();
    let (mut query, mut headers) = (Vec::new(), Vec::new());
    let mut root = Value::Null;
    let mut put = |at: &Value, value: &Value| {
        let text = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        if let Some(name) = at.get("query").and_then(Value::as_str) {
            query.push((name.to_owned(), text));
        } else if let Some(name) = at.get("header").and_then(Value::as_str) {
            headers.push((name.to_owned(), text));
        } else if let Some(pointer) = at.get("pointer").and_then(Value::as_str) {
            set(&mut root, pointer, value.clone());
        }
    };
    let any = || Value::from(body::fresh_id());
    let mut places = vec![place(&when)];
    put(&when, when.get("equals").unwrap_or(&any()));
    let reply = rule.get("reply").cloned().unwrap_or_default();
    let of_headers = reply.get("headers").and_then(Value::as_object);
    let of_headers = of_headers.into_iter().flat_map(Map::values);
    let parts = of_headers
        .chain(reply.get("body"))
        .filter_map(Value::as_array)
        .flatten();
    for part in parts.map(|part| part.get("hmac").unwrap_or(part)) {
        if place(part).is_some() && !places.contains(&place(part)) {
            places.push(place(part));
            put(part, &any());
        }
    }
    let requires = rule.get("requires").cloned().unwrap_or_default();
    if let Some(name) = requires.get("parameter").and_then(Value::as_str) {
        let value = raw.get("parameters").and_then(|given| given.get(name));
        let value = value.with_context(|| format!("--parameter {name}=… is needed"))?;
        put(&requires, value);
    }
    let method = when.get("method").and_then(Value::as_str);
    let method = method.unwrap_or(if root.is_null() { "GET" } else { "POST" });
    let mut target = source::split(url).1.to_owned();
    for (name, value) in query {
        let pair: String = form_urlencoded::Serializer::new(String::new())
            .append_pair(&name, &value)
            .finish();
        target = format!(
            "{target}{}{pair}",
            if target.contains('?') { '&' } else { '?' }
        );
    }
    let body = if root.is_null() {
        Vec::new()
    } else {
        root.to_string().into_bytes()
    };
    let mut question = Question {
        method: method.parse().context("the method of the challenge")?,
        url: target,
        headers,
        body,
    };
    if matches!(requires.as_str(), Some("signature" | "token")) {
        let (source, key) = source::only(policy)?;
        let draft = Draft {
            target: &question.url,
            is_json: true,
            body: &question.body,
            id: &body::fresh_id(),
        };
        let made = sign::callback(source, key, &draft, now)
            .map_err(|rejection| anyhow!("the challenge cannot be signed: {rejection}"))?;
        question.url = made.target;
        question.body = made.body;
        question.headers.extend(made.headers);
    }
    if !question.body.is_empty() {
        question
            .headers
            .push(("content-type".to_owned(), "application/json".to_owned()));
    }
    question.url = format!("{}{}", source::split(url).0, question.url);
    Ok(question)
}

/// Where a value is: its kind and its name.
fn place(at: &Value) -> Option<(&'static str, String)> {
    ["query", "header", "pointer"].into_iter().find_map(|kind| {
        let name = at.get(kind)?.as_str()?;
        Some((kind, name.to_owned()))
    })
}

/// Sets the value at a pointer, making the objects on the way.
fn set(root: &mut Value, pointer: &str, value: Value) {
    let mut at = root;
    for token in pointer.split('/').skip(1) {
        let name = token.replace("~1", "/").replace("~0", "~");
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(fields) = at.as_object_mut() else {
            return;
        };
        at = fields.entry(name).or_insert(Value::Null);
    }
    *at = value;
}

/// What the guard answers.
fn expected(policy: &Arc<Policy>, question: &Question, now: UnixMillis) -> anyhow::Result<Reply> {
    let (start, target) = source::split(&question.url);
    let host = start.split("://").nth(1).unwrap_or_default();
    let mut pairs: Vec<(&[u8], &[u8])> = vec![
        (b":method", question.method.as_str().as_bytes()),
        (b":path", target.as_bytes()),
        (b":authority", host.as_bytes()),
    ];
    let lower: Vec<(String, &String)> = question
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    pairs.extend(
        lower
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
    );
    let head = RequestHead::new(&pairs);
    let opened = Guard::open(policy, &head, question.body.is_empty(), now);
    let (mut guard, mut step) = opened.context("the source does not have this path")?;
    if step == Step::Hold {
        let inputs = Inputs {
            now,
            owner: OwnerToken::new(1),
            salt: [0; 16],
        };
        step = guard.body_ended(&question.body, &inputs, &mut Scratch::default());
    }
    match step {
        Step::Answer(answer) if guard.report().verdict == Some(Code::Challenge) => {
            Ok(Reply::new(&answer, true))
        }
        _ => bail!(
            "the guard takes this for no challenge: {:?}",
            guard.report().verdict
        ),
    }
}
