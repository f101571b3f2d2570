//! The story that the demo tells: what is sent, and what sender and upstream are to see of it.

use anyhow::Context;
use callback_guard_core::config;
use callback_guard_core::policy::Policy;
use callback_guard_core::scheme::keys::SigningSecret;
use callback_guard_core::sign;
use callback_guard_core::time::UnixMillis;
use callback_guard_harness::{Answer, Body, Request};
use serde_json::json;

use crate::{samples, time};

/// The path that `envoy.yaml` gives to the source `suno`.
pub(super) const PATH: &str = "/callbacks/suno";

/// One line of the story.
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
        let secret: &SigningSecret = source.secrets.first().context("there is no secret")?;
        sign::sign(source, secret, body, "", now).map_err(|refusal| anyhow::anyhow!("{refusal}"))
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

/// Every step.
pub(super) fn tell(secret: &str) -> anyhow::Result<Vec<Step>> {
    let signer = Signer::new(secret)?;
    let now = time::now();
    let mut steps = Vec::new();
    for (number, kind) in samples::all()?.iter().enumerate() {
        let body = kind.body_for(&format!("demo-{number}-{}", now.as_millis()));
        let request = signer.request(&body, now)?;
        steps.push(delivered(
            format!("genuine: {}", kind.name),
            vec![request],
            vec![body],
        ));
    }

    let mut next = 0_u32;
    let mut fresh = |stage: &str| {
        next = next.saturating_add(1);
        body(&format!("story-{next}-{}", now.as_millis()), stage)
    };
    let genuine = fresh("complete");
    let request = signer.request(&genuine, now)?;

    let forged = Signer::new("somebody-elses-key")?.request(&genuine, now)?;
    steps.push(refused(
        "forged: signed with another key",
        forged,
        401,
        "signature_mismatch",
    ));
    let swapped = request.clone().body(fresh("complete"));
    steps.push(refused(
        "forged: a signature of another task",
        swapped,
        401,
        "signature_mismatch",
    ));
    let past = UnixMillis::from_seconds(now.as_seconds().saturating_sub(600));
    let stale = signer.request(&genuine, past)?;
    steps.push(refused(
        "stale: signed ten minutes ago",
        stale,
        401,
        "timestamp_too_old",
    ));
    let early = signer.request(&genuine, now.plus_seconds(600))?;
    steps.push(refused(
        "signed ten minutes ahead",
        early,
        401,
        "timestamp_in_future",
    ));
    let unsigned = Request::post(PATH).json(genuine.clone());
    steps.push(refused("unsigned", unsigned, 401, "signature_missing"));
    let halves = Body::halves(b"{\"code\":200,".to_vec());
    steps.push(refused(
        "malformed: half of a JSON text, in two pieces",
        request.clone().body(halves),
        400,
        "json_malformed",
    ));
    let twice = b"{\"data\":{\"task_id\":\"a\",\"task_\\u0069d\":\"b\"}}".to_vec();
    let twice = request.clone().body(twice);
    steps.push(refused(
        "the same key twice, once in escapes",
        twice,
        400,
        "json_duplicate_key",
    ));
    let two = b"{\"data\":{\"task_id\":\"a\"},\"taskId\":\"b\"}".to_vec();
    steps.push(refused(
        "two ids that disagree",
        request.clone().body(two),
        422,
        "id_ambiguous",
    ));
    let mut form = request.clone();
    form.headers.retain(|(name, _)| name != "content-type");
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    steps.push(refused(
        "a form instead of JSON",
        form,
        415,
        "unsupported_media_type",
    ));
    let large = request.clone().body(vec![b' '; (1 << 20) + 1]);
    steps.push(refused(
        "one byte more than 1 MiB",
        large,
        413,
        "body_too_large",
    ));

    let same = fresh("complete");
    let request = signer.request(&same, now)?;
    steps.push(Step {
        sender: vec![
            (200, None),
            (200, Some("duplicate")),
            (200, Some("duplicate")),
        ],
        ..delivered(
            "the same event three times".into(),
            vec![request; 3],
            vec![same],
        )
    });

    let fails = fresh("complete");
    let request = signer.request(&fails, now)?;
    steps.push(Step {
        upstream: vec![Answer::status(500), Answer::status(200)],
        sender: vec![(500, None), (200, None), (200, Some("duplicate"))],
        ..delivered(
            "an event whose first delivery gets 500".into(),
            vec![request; 3],
            vec![fails.clone(), fails],
        )
    });

    let task = format!("stages-{}", now.as_millis());
    let stages: Vec<Vec<u8>> = ["text", "first", "complete"]
        .iter()
        .map(|stage| body(&task, stage))
        .collect();
    let requests: Result<Vec<Request>, _> = stages
        .iter()
        .map(|body| signer.request(body, now))
        .collect();
    steps.push(delivered(
        "text, first, complete of one task".into(),
        requests?,
        stages,
    ));
    Ok(steps)
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
