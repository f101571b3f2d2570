//! Values out of the environment.

use crate::error::{ConfigError, Path};
use crate::outside::Environment;

/// The value of the variable called `name`.
///
/// # Errors
///
/// It is not set. The error quotes `name` only where it looks like one: some write the secret itself
/// there.
pub(super) fn variable(
    path: &Path,
    name: &str,
    environment: Environment<'_>,
) -> Result<Vec<u8>, ConfigError> {
    environment(name).ok_or_else(|| {
        let problem = if is_name(name) {
            format!("environment variable `{name}` is not set")
        } else {
            "names a variable that is not set (not shown, as it may be a secret), expected the \
             name of an environment variable, such as `SUNO_WEBHOOK_KEY`"
                .to_owned()
        };
        ConfigError::new(path, problem)
    })
}

/// Whether `name` looks like the name of a variable: `[A-Z][A-Z0-9_]*`.
fn is_name(name: &str) -> bool {
    let is_name_byte =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(is_name_byte)
        && name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_uppercase())
}
