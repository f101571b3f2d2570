//! Cuts a block out of a YAML text, and puts another configuration of the guard into it.
//!
//! Works on lines, so that the comments beside the settings stay.

use super::source::Source;

/// The variables that the repository's own files name.
const OWN_VARIABLES: [&str; 2] = ["SUNO_WEBHOOK_KEY_PREVIOUS", "SUNO_WEBHOOK_KEY"];
/// The entries of the Secret that they name.
const OWN_ENTRIES: [&str; 2] = ["suno-webhook-key-previous", "suno-webhook-key"];

/// The item of a list that begins with `first`, without the indentation that it has in `text`.
pub(super) fn cut(text: &str, first: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.trim_start().starts_with(first));
    let begin = lines.next()?;
    let indent = indent(begin);
    let rest = lines.take_while(|line| line.trim().is_empty() || self::indent(line) > indent);
    let mut block = String::new();
    for line in std::iter::once(begin).chain(rest) {
        block.push_str(line.get(indent..).unwrap_or_default());
        block.push('\n');
    }
    Some(block)
}

/// `text` with the configuration, the variables and the path of `source` in it.
///
/// # Errors
///
/// The text has no configuration of the guard in a form that is known here.
pub(super) fn filled(text: &str, source: &Source) -> anyhow::Result<String> {
    let mut lines = text.lines().peekable();
    let mut made = String::with_capacity(text.len());
    while let Some(line) = lines.next() {
        push(&mut made, line);
        let here = indent(line);
        let value = match line.trim() {
            "value: |" => Some(serde_json::to_string_pretty(&source.configuration)?),
            "config:" | "pluginConfig:" if is_guards(text, line) => {
                Some(yaml_serde::to_string(&source.configuration)?)
            }
            _ => None,
        };
        let Some(value) = value else { continue };
        while lines.next_if(|line| indent(line) > here).is_some() {}
        for line in value.lines() {
            push(&mut made, &format!("{:width$}{line}", "", width = here + 2));
        }
    }
    let [variable, previous] = &source.variables;
    let entry = variable.to_lowercase().replace('_', "-");
    for (own, new) in OWN_VARIABLES.iter().zip([previous, variable]) {
        made = made.replace(own, &format!("\u{0}{new}"));
    }
    let previous_entry = format!("{entry}-previous");
    for (own, new) in OWN_ENTRIES.iter().zip([&previous_entry, &entry]) {
        made = made.replace(own, &format!("\u{0}{new}"));
    }
    Ok(made.replace('\u{0}', ""))
}

/// Whether the value behind `line` is the guard's own configuration.
fn is_guards(text: &str, line: &str) -> bool {
    text.lines()
        .skip_while(|other| *other != line)
        .skip(1)
        .take_while(|other| indent(other) > indent(line))
        .any(|other| other.trim() == "sources:")
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn indent(line: &str) -> usize {
    line.len().saturating_sub(line.trim_start().len())
}
