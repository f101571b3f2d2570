//! The bodies that the senders print in their documentation, one per kind of callback.

use anyhow::{Context, anyhow};
use callback_guard_core::policy::{FieldType, Source};
use callback_guard_core::scheme::{IdAt, TimestampPlace, Unit, written};
use callback_guard_core::time::UnixMillis;
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde_json::{Value, json};

/// The bodies, and `index.json`, which says of each where its id is and where it was printed.
static FILES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../tests/data/samples");

/// One kind of callback.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its name, as in `suno_generate.success`.
    pub(crate) name: String,
    /// The body as printed.
    pub(crate) body: &'static str,
    /// The id in it.
    pub(crate) task_id: String,
    /// What makes it another stage of its task: callbackType or status, if it has one.
    pub(crate) stage: Option<String>,
    /// The page that prints it.
    pub(crate) page: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    file: String,
    task_id: String,
    #[serde(rename = "callbackType")]
    callback_type: Option<String>,
    state: Option<String>,
    status: Option<String>,
    source: String,
}

/// Every kind, in the order of the names.
///
/// # Errors
///
/// None that a build with sound data files has.
pub(crate) fn all() -> anyhow::Result<Vec<Kind>> {
    let index = text("index.json")?;
    let index: Index = serde_json::from_str(index).context("samples/index.json")?;
    let mut kinds = Vec::with_capacity(index.files.len());
    for entry in index.files {
        kinds.push(Kind {
            name: entry.file.trim_end_matches(".json").replace("__", "."),
            body: text(&entry.file)?,
            task_id: entry.task_id,
            stage: entry.callback_type.or(entry.state).or(entry.status),
            page: entry.source,
        });
    }
    kinds.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(kinds)
}

/// The kind `name`.
///
/// # Errors
///
/// The name is unknown; the error lists what is near.
pub(crate) fn find(name: &str) -> anyhow::Result<Kind> {
    let wanted = name.replace("__", ".");
    let mut kinds = all()?;
    if let Some(found) = kinds.iter().position(|kind| kind.name == wanted) {
        return Ok(kinds.swap_remove(found));
    }
    let product = wanted.split('.').next().unwrap_or_default();
    let near: Vec<&str> = kinds
        .iter()
        .map(|kind| kind.name.as_str())
        .filter(|kind| kind.contains(product))
        .collect();
    let hint = if near.is_empty() {
        "`callback-guard send --list-kinds` lists them".to_owned()
    } else {
        format!("expected {}", near.join(", "))
    };
    Err(anyhow!("--kind: `{name}` is unknown, {hint}"))
}

impl Kind {
    /// The body for the message id `id`.
    pub(crate) fn body_for(&self, id: &str) -> Vec<u8> {
        self.body.replace(&self.task_id, id).into_bytes()
    }
}

/// A body for senders of whom there is no sample: the least that `source` accepts.
pub(crate) fn made_for(source: &Source, id: &str, now: UnixMillis) -> Vec<u8> {
    let mut body = json!({ "type": "callback-guard.test" });
    let pointer = |slot: usize| {
        source
            .pointers
            .get(slot)
            .map(callback_guard_core::json::Pointer::as_str)
    };
    for field in source.required.iter().filter(|field| !field.optional) {
        let value = match field.kind {
            FieldType::Array => json!([]),
            FieldType::Boolean => json!(true),
            FieldType::Integer | FieldType::Number => json!(200),
            FieldType::Object => json!({}),
            FieldType::String => json!("test"),
        };
        put(&mut body, &field.pointer, value);
    }
    let slot = match &source.scheme.id {
        IdAt::Pointers { slots, .. } => pointer(slots.start),
        IdAt::BodyDigest | IdAt::MessageDigest | IdAt::Header(_) => Some("/id"),
    };
    put(&mut body, slot.unwrap_or("/id"), json!(id));
    if let Some(at) = source.scheme.timestamp()
        && let TimestampPlace::Pointer(slot) = at.place
    {
        let value = match at.unit {
            Unit::Seconds => json!(now.as_seconds()),
            Unit::Milliseconds => json!(now.as_millis()),
            Unit::Rfc3339 => json!(written(now, at.unit)),
        };
        put(&mut body, pointer(slot).unwrap_or("/timestamp"), value);
    }
    body.to_string().into_bytes()
}

/// Sets the field at a JSON pointer, with objects on the way to it.
fn put(body: &mut Value, pointer: &str, value: Value) {
    let mut place = body;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        let Some(fields) = place.as_object_mut() else {
            return;
        };
        let name = name.replace("~1", "/").replace("~0", "~");
        place = fields.entry(name).or_insert(Value::Null);
    }
    *place = value;
}

fn text(file: &str) -> anyhow::Result<&'static str> {
    FILES
        .get_file(file)
        .and_then(|file| file.contents_utf8())
        .with_context(|| format!("samples/{file} is not there"))
}
