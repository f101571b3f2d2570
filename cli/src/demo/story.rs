//! The story that the demo tells: what is sent, and what sender and application are to see of it.

use anyhow::Context;
use callback_guard_config as config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::SigningKey;
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Answer, Body, Request};
use serde_json::json;

use crate::{samples, time};

/// The path that `envoy.yaml` gives to the source `suno`.
pub(super) const PATH: &str = "/callbacks/suno";

/// A part of the story that proves one promise.
pub(super) struct Chapter {
    /// What it proves.
    pub(super) title: &'static str,
    /// Its rows.
    pub(super) steps: Vec<Step>,
}

/// One row of the story.
pub(super) struct Step {
    /// What is sent, in words.
    pub(super) what: String,
    /// What the upstream answers, in turn; 200 if nothing is said.
    pub(super) upstream: Vec<Answer>,
    /// The requests, one after the other.
    pub(super) requests: Vec<Request>,
    /// What the sender is to get for each: the status, and the guard's own word if it answers.
    pub(super) sender: Vec<(u16, Option<&'static str>)>,
    /// The bodies that the upstream is to see, in this order and byte for byte; no other.
    pub(super) delivered: Vec<Vec<u8>>,
}

/// Signs callbacks with one secret.
pub(super) struct Signer {
    policy: Policy,
}

impl Signer {
    pub(super) fn new(secret: &str) -> anyhow::Result<Self> {
        let configuration = json!({
            "sources": [{
                "name": "suno",
                "match": { "path": PATH },
                "preset": "suno",
                "secrets": [{ "value": secret }],
            }],
        });
        let policy = config::parse(configuration.to_string().as_bytes(), &|_| None)?;
        Ok(Self { policy })
    }

    /// The headers for a body, signed `now`.
    pub(super) fn headers(&self, body: &[u8], now: UnixMillis) -> anyhow::Result<sign::Headers> {
        let source = self.policy.sources.first().context("there is no source")?;
        let key: &SigningKey = source.signing_keys.first().context("there is no secret")?;
        sign::sign(source, key, body, "", now).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }

    /// A genuine callback with this body, signed `now`.
    pub(super) fn request(&self, body: &[u8], now: UnixMillis) -> anyhow::Result<Request> {
        let mut request = Request::post(PATH).json(body.to_vec());
        for (name, value) in self.headers(body, now)? {
            request = request.header(&name, value);
        }
        Ok(request)
    }
}

/// A body for a new event.
pub(super) fn body(id: &str, stage: &str) -> Vec<u8> {
    let data = json!({ "task_id": id, "callbackType": stage, "data": [] });
    json!({ "code": 200, "msg": "success", "data": data })
        .to_string()
        .into_bytes()
}

/// Every documented kind of callback, signed.
pub(super) fn genuine(secret: &str) -> anyhow::Result<Vec<Step>> {
    let signer = Signer::new(secret)?;
    let now = time::now();
    let mut steps = Vec::new();
    for (number, kind) in samples::all()?.iter().enumerate() {
        let body = kind.body_for(&format!("demo-{number}-{}", now.as_millis()));
        let request = signer.request(&body, now)?;
        steps.push(delivered(kind.name.clone(), vec![request], vec![body]));
    }
    Ok(steps)
}

/// The chapters before the genuine kinds: what is refused comes first.
pub(super) fn chapters(secret: &str) -> anyhow::Result<Vec<Chapter>> {
    let signer = Signer::new(secret)?;
    let now = time::now();
    Ok(vec![
        Chapter {
            title: "1. Who is not the sender does not get through",
            steps: not_the_sender(&signer, now)?,
        },
        Chapter {
            title: "2. What an application could misread does not get through",
            steps: misread(&signer, now)?,
        },
        Chapter {
            title: "3. Each event is delivered once, and none is lost",
            steps: once(&signer, now)?,
        },
    ])
}

fn not_the_sender(signer: &Signer, now: UnixMillis) -> anyhow::Result<Vec<Step>> {
    let genuine = body(&format!("story-{}", now.as_millis()), "complete");
    let another = body(&format!("another-{}", now.as_millis()), "complete");
    let request = signer.request(&genuine, now)?;
    let past = UnixMillis::from_seconds(now.as_seconds().saturating_sub(600));
    Ok(vec![
        refused(
            "signed with another key",
            Signer::new("somebody-elses-key")?.request(&genuine, now)?,
            401,
            "signature_mismatch",
        ),
        refused(
            "the signature of another task",
            request.body(another),
            401,
            "signature_mismatch",
        ),
        refused(
            "no signature",
            Request::post(PATH).json(genuine.clone()),
            401,
            "signature_missing",
        ),
        refused(
            "signed ten minutes ago: a replay",
            signer.request(&genuine, past)?,
            401,
            "timestamp_too_old",
        ),
        refused(
            "signed ten minutes ahead",
            signer.request(&genuine, now.plus_seconds(600))?,
            401,
            "timestamp_in_future",
        ),
    ])
}

fn misread(signer: &Signer, now: UnixMillis) -> anyhow::Result<Vec<Step>> {
    let genuine = body(&format!("misread-{}", now.as_millis()), "complete");
    let request = signer.request(&genuine, now)?;
    let with = |body: &[u8]| request.clone().body(body.to_vec());
    let mut form = request.clone();
    form.headers.retain(|(name, _)| name != "content-type");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    Ok(vec![
        refused(
            "half a JSON text, in two pieces",
            request
                .clone()
                .body(Body::halves(b"{\"code\":200,".to_vec())),
            400,
            "json_malformed",
        ),
        refused(
            "the same key twice, once escaped",
            with(b"{\"data\":{\"task_id\":\"a\",\"task_\\u0069d\":\"b\"}}"),
            400,
            "json_duplicate_key",
        ),
        refused(
            "two ids that disagree",
            with(b"{\"data\":{\"task_id\":\"a\"},\"taskId\":\"b\"}"),
            422,
            "id_ambiguous",
        ),
        refused(
            "a form instead of JSON",
            form,
            415,
            "unsupported_media_type",
        ),
        refused(
            "one byte more than 1 MiB",
            with(&vec![b' '; (1 << 20) + 1]),
            413,
            "body_too_large",
        ),
    ])
}

fn once(signer: &Signer, now: UnixMillis) -> anyhow::Result<Vec<Step>> {
    let event = |name: &str, stage: &str| body(&format!("{name}-{}", now.as_millis()), stage);
    let same = event("same", "complete");
    let repeated = Step {
        sender: vec![
            (200, None),
            (200, Some("duplicate")),
            (200, Some("duplicate")),
        ],
        ..delivered(
            "the same event three times".into(),
            vec![signer.request(&same, now)?; 3],
            vec![same],
        )
    };
    let fails = event("fails", "complete");
    let retried = Step {
        upstream: vec![Answer::status(500), Answer::status(200)],
        sender: vec![(500, None), (200, None), (200, Some("duplicate"))],
        ..delivered(
            "one whose first delivery fails".into(),
            vec![signer.request(&fails, now)?; 3],
            vec![fails.clone(), fails],
        )
    };
    let stages = ["text", "first", "complete"].map(|stage| event("stages", stage));
    let requests: Result<Vec<Request>, _> = stages
        .iter()
        .map(|body| signer.request(body, now))
        .collect();
    let staged = delivered(
        "text, first, complete of one task".into(),
        requests?,
        stages.to_vec(),
    );
    Ok(vec![repeated, retried, staged])
}

fn delivered(what: String, requests: Vec<Request>, delivered: Vec<Vec<u8>>) -> Step {
    let sender = vec![(200, None); requests.len()];
    Step {
        what,
        upstream: Vec::new(),
        requests,
        sender,
        delivered,
    }
}

fn refused(what: &str, request: Request, status: u16, code: &'static str) -> Step {
    Step {
        what: what.to_owned(),
        upstream: Vec::new(),
        requests: vec![request],
        sender: vec![(status, Some(code))],
        delivered: Vec::new(),
    }
}
