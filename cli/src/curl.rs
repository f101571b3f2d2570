//! A ready `curl` command.

use std::fmt::Write as _;

/// Where `curl` takes the body from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// A file.
    File(&'a str),
    /// The command itself.
    Inline(&'a str),
}

/// The command that sends `headers` and the body to `url`, for a POSIX shell.
pub(crate) fn command(
    url: &str,
    content_type: &str,
    headers: &[(String, String)],
    data: Data<'_>,
) -> String {
    // --globoff: brackets and braces in a URL are meant as they are.
    let mut command = format!(
        "curl --silent --show-error --include --globoff {}",
        quote(url)
    );
    let kind = ("content-type".to_owned(), content_type.to_owned());
    for (name, value) in [&kind].into_iter().chain(headers) {
        let _ = write!(
            command,
            " \\\n  --header {}",
            quote(&format!("{name}: {value}"))
        );
    }
    // Both send the bytes as they are; only `--data-raw` takes a leading `@` for itself.
    let data = match data {
        Data::File(path) => format!("--data-binary {}", quote(&format!("@{path}"))),
        Data::Inline(text) => format!("--data-raw {}", quote(text)),
    };
    let _ = write!(command, " \\\n  {data}");
    command
}

/// `text` as one word of a POSIX shell.
pub(crate) fn quote(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_survives_the_shell() {
        for (text, quoted) in [
            ("plain-1.json", "plain-1.json"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME `x` \"y\" \\", "'$HOME `x` \"y\" \\'"),
            ("a\nb", "'a\nb'"),
            ("~", "'~'"),
        ] {
            assert_eq!(quote(text), quoted);
        }
    }
}
