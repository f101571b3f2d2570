//! Finds the guard's configuration: in a file that is one, or in the Envoy configuration (or the
//! Kubernetes manifest) that contains it.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize as _;
use serde_json::Value;

use crate::body;

/// A file, read.
#[derive(Debug)]
pub(crate) struct File {
    text: String,
    /// Every YAML document in it, those inside of its strings (a ConfigMap's) included.
    documents: Vec<Document>,
}

#[derive(Debug)]
struct Document {
    path: String,
    root: Value,
}

/// How the configuration is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The file is the configuration.
    Whole,
    /// JSON in a `google.protobuf.StringValue`: what Envoy hands on as it is.
    StringValue,
    /// A `google.protobuf.Struct`: Envoy hands on its protobuf bytes.
    Struct,
    /// The `filter_config` of a dynamic module, for which Envoy makes JSON of either.
    DynamicModule,
    /// The `pluginConfig` or `config` of a platform that makes JSON of it.
    Platform,
    /// The same, of Envoy Gateway's `dynamicModule`.
    PlatformModule,
}

/// A configuration of the guard.
#[derive(Debug)]
pub(crate) struct Found<'f> {
    /// Where it is in the file; empty if it is the file.
    pub(crate) path: String,
    /// Its JSON text.
    pub(crate) text: String,
    /// How it is given.
    pub(crate) shape: Shape,
    /// The values around it, the document first, the plugin that it belongs to last.
    pub(crate) around: Vec<Step<'f>>,
}

/// A value on the way from the document to the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Step<'f> {
    /// Its path.
    pub(crate) path: String,
    /// It.
    pub(crate) value: &'f Value,
}

impl File {
    /// Reads JSON or YAML.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is neither.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = body::read(path)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| anyhow::anyhow!("{}: is not UTF-8", path.display()))?;
        let mut documents = Vec::new();
        // JSON that is torn is left to the guard's own parser, which says where.
        if let Err(error) = collect(&text, "", &mut documents)
            && !text.trim_start().starts_with('{')
        {
            return Err(error).with_context(|| path.display().to_string());
        }
        Ok(Self { text, documents })
    }

    /// Every configuration of the guard in it.
    pub(crate) fn configurations(&self) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for document in &self.documents {
            let step = Step {
                path: document.path.clone(),
                value: &document.root,
            };
            walk(&mut vec![step], &mut found);
        }
        let is_whole = self.documents.first().is_none_or(|document| {
            document.path.is_empty() && document.root.get("sources").is_some()
        });
        if found.is_empty() && is_whole {
            found.push(Found {
                path: String::new(),
                text: self.text.clone(),
                shape: Shape::Whole,
                around: Vec::new(),
            });
        }
        found
    }
}

/// The text of the one configuration in `file`.
///
/// # Errors
///
/// There is none, or more than one.
pub(crate) fn only_configuration(file: &Path) -> anyhow::Result<String> {
    let read = File::read(file)?;
    let mut found = read.configurations();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one.text),
        (Some(_), false) => bail!(
            "{}: holds several configurations of the guard",
            file.display()
        ),
        (None, _) => bail!("{}: {NONE}", file.display()),
    }
}

/// What is said of a file without a configuration.
pub(crate) const NONE: &str = "holds no configuration of the guard, expected JSON with `sources`, \
     or an Envoy configuration with a wasm filter whose `configuration` is such JSON, or a dynamic \
     module whose `filter_config` is";

/// Adds the documents of a YAML (or JSON) text, and of the texts inside of it.
fn collect(text: &str, path: &str, documents: &mut Vec<Document>) -> anyhow::Result<()> {
    let mut roots = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        roots.push(Value::deserialize(document)?);
    }
    let count = roots.len();
    for (index, root) in roots.into_iter().enumerate() {
        let path = match count {
            1 => path.to_owned(),
            _ => format!("{path}[document {index}]"),
        };
        let mut inner = Vec::new();
        texts(&root, &path, &mut inner);
        documents.push(Document { path, root });
        for (path, text) in inner {
            // A text that only looks like Envoy's is left alone.
            let _ = collect(&text, &path, documents);
        }
    }
    Ok(())
}

/// The strings in `value` that are Envoy configurations.
fn texts(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) if text.contains("@type") && text.contains("sources") => {
            found.push((path.to_owned(), text.clone()));
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                texts(item, &format!("{path}[{index}]"), found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                texts(field, &join(path, name), found);
            }
        }
        _ => {}
    }
}

fn walk<'f>(around: &mut Vec<Step<'f>>, found: &mut Vec<Found<'f>>) {
    let Some(Step { path, value }) = around.last().cloned() else {
        return;
    };
    for name in ["configuration", "filter_config", "pluginConfig", "config"] {
        if let Some((text, shape)) = value
            .get(name)
            .and_then(|given| given_as(name, given, value))
        {
            found.push(Found {
                path: join(&path, name),
                text,
                shape,
                around: around.clone(),
            });
            return;
        }
    }
    match value {
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                around.push(Step { path, value });
                walk(around, found);
                around.pop();
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = join(&path, name);
                around.push(Step { path, value });
                walk(around, found);
                around.pop();
            }
        }
        _ => {}
    }
}

/// The guard's JSON, if that is what `given` is under `name` in `plugin`.
fn given_as(name: &str, given: &Value, plugin: &Value) -> Option<(String, Shape)> {
    let kind = given.get("@type").and_then(Value::as_str).unwrap_or("");
    let inside = given.get("value");
    if name == "filter_config" {
        field(plugin, "dynamic_module_config")?;
        let text = match inside? {
            Value::String(text) if kind.ends_with("StringValue") => text.clone(),
            fields if kind.ends_with("Struct") => fields.to_string(),
            _ => return None,
        };
        let is_ours = text.contains("\"sources\"") || is_named_so(plugin);
        return is_ours.then_some((text, Shape::DynamicModule));
    }
    if name == "configuration" {
        return match inside {
            Some(Value::String(text))
                if kind.ends_with("StringValue")
                    && (text.contains("\"sources\"") || is_named_so(plugin)) =>
            {
                Some((text.clone(), Shape::StringValue))
            }
            Some(fields) if kind.ends_with("Struct") && fields.get("sources").is_some() => {
                Some((fields.to_string(), Shape::Struct))
            }
            _ => None,
        };
    }
    let looks_so = given.get("sources").is_some_and(Value::is_array);
    let shape = match field(plugin, "filter_name") {
        Some(_) => Shape::PlatformModule,
        None => Shape::Platform,
    };
    looks_so.then(|| (given.to_string(), shape))
}

/// Whether a plugin is called after the guard.
fn is_named_so(plugin: &Value) -> bool {
    let names = [
        plugin.get("name"),
        field(plugin, "filter_name"),
        field(plugin, "root_id"),
        field(plugin, "vm_config").and_then(|vm| field(vm, "vm_id")),
    ];
    names
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .any(|name| name.replace('_', "-").contains("callback-guard"))
}

/// The field `name` of a protobuf message in JSON or YAML, in snake case or in camel case.
pub(crate) fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.get(name).or_else(|| {
        let mut parts = name.split('_');
        let mut camel = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (first, rest) = part.split_at_checked(1).unwrap_or_default();
            camel.push_str(&first.to_ascii_uppercase());
            camel.push_str(rest);
        }
        value.get(camel)
    })
}

/// The path of the field `name` of what is at `path`.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}
