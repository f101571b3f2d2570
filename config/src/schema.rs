//! The JSON Schema of the configuration, for editors.

use serde_json::{Value, json};

use crate::error::ConfigError;
use crate::presets::presets;
use crate::raw::RawConfig;

/// The schema, made of the types that read the configuration.
///
/// It knows fields, types, choices and ranges. Rules between fields, as one of two, are left to
/// [`parse`](crate::parse).
///
/// # Errors
///
/// None that a build with a sound table of presets has.
pub fn schema() -> Result<Value, ConfigError> {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    let mut names: Vec<String> = presets()?
        .into_iter()
        .flat_map(|preset| preset.names)
        .collect();
    names.sort();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), json!("callback-guard"));
    }
    let preset = schema.pointer_mut("/$defs/RawSource/properties/preset");
    if let Some(preset) = preset.and_then(Value::as_object_mut) {
        // `null` is what an optional field of any type may be.
        let choices = names.into_iter().map(Value::String).chain([Value::Null]);
        preset.insert("enum".to_owned(), choices.collect());
    }
    Ok(schema)
}
