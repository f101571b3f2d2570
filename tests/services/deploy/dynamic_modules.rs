//! Envoy Gateway's fields for dynamic modules, which the generated schemas (`schemas.rs`) do not have yet.
//!
//! Source: Envoy Gateway 1.8.0 to 1.9.0, `api/v1alpha1/dynamic_module_types.go`.

use serde::Deserialize;
use serde_json::Value;

/// An entry of `EnvoyProxy.spec.dynamicModules`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    source: Source,
    #[serde(default, rename = "doNotClose")]
    _do_not_close: bool,
    #[serde(default, rename = "loadGlobally")]
    _load_globally: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    #[serde(default, rename = "type")]
    kind: Kind,
    local: Option<Local>,
    remote: Option<Remote>,
}

#[derive(Default, Deserialize)]
enum Kind {
    #[default]
    Local,
    Remote,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Local {
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remote {
    url: String,
    sha256: String,
}

/// An entry of `EnvoyExtensionPolicy.spec.dynamicModule`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    name: String,
    #[serde(default)]
    filter_name: String,
    #[serde(default, rename = "config")]
    _config: Value,
    #[serde(default, rename = "terminalFilter")]
    _terminal_filter: bool,
}

/// `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`, at most 253 bytes.
fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = (1..=253).contains(&name.len())
        && name
            .bytes()
            .all(|byte| is_plain(byte) || byte == b'.' || byte == b'-')
        && name.bytes().next().is_some_and(is_plain)
        && name.bytes().last().is_some_and(is_plain);
    fits.then_some(()).ok_or_else(|| format!("name: {name}"))
}

impl Source {
    fn check(&self) -> Result<(), String> {
        match (&self.kind, &self.local, &self.remote) {
            (Kind::Local, Some(local), None) if local.path.starts_with('/') => Ok(()),
            (Kind::Remote, None, Some(remote))
                if remote.url.starts_with("http") && remote.sha256.len() == 64 =>
            {
                Ok(())
            }
            (Kind::Local, ..) => Err("source: expected `local` alone, an absolute path".to_owned()),
            (Kind::Remote, ..) => {
                Err("source: expected `remote` alone, with url and sha256".to_owned())
            }
        }
    }
}

/// Holds the two lists against the fields, types and patterns of the CRDs, and each filter against the
/// modules that the proxy allows.
pub fn check(entries: &Value, filters: &Value) -> Result<(), String> {
    let entries = Vec::<Entry>::deserialize(entries).map_err(|error| error.to_string())?;
    let filters = Vec::<Filter>::deserialize(filters).map_err(|error| error.to_string())?;
    for entry in &entries {
        check_name(&entry.name)?;
        entry.source.check()?;
    }
    for filter in &filters {
        check_name(&filter.name)?;
        if filter.filter_name.len() > 253 {
            return Err(format!("filterName: {}", filter.filter_name));
        }
        if !entries.iter().any(|entry| entry.name == filter.name) {
            return Err(format!("{}: not in dynamicModules", filter.name));
        }
    }
    Ok(())
}

/// A manifest without these lists.
pub fn taken_out(manifest: &mut Value) {
    if let Some(spec) = manifest["spec"].as_object_mut() {
        spec.remove("dynamicModules");
        spec.remove("dynamicModule");
    }
}
