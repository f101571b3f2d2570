//! The inspector as it is configured.

use crate::error::{ConfigError, Path, within};
use crate::outside::Environment;
use crate::raw::inspector::RawInspector;
use crate::source::is_path;
use crate::variable::variable;
use callback_guard_core::inspector::{Inspector, LEAST_EVENTS, MOST_EVENTS, Place};
use callback_guard_core::policy::Source;
use callback_guard_core::scheme::keys::Token;

/// The shortest token of the inspector, in bytes: nobody guesses 16 random ones.
const LEAST_TOKEN: usize = 16;
/// The longest token of the inspector, in bytes.
const MOST_TOKEN: usize = 256;

#[cold]
#[inline(never)]
pub(super) fn compile(
    path: &Path,
    raw: &RawInspector,
    sources: &[Source],
    environment: Environment<'_>,
) -> Result<Inspector, ConfigError> {
    let events = within(
        &path.field("events"),
        raw.events,
        LEAST_EVENTS.into(),
        MOST_EVENTS.into(),
    )?;
    let place = match (&raw.path, &raw.token_env) {
        (None, None) => None,
        (Some(text), Some(variable)) => Some(place(path, text, variable, sources, environment)?),
        (Some(_), None) => {
            let problem = "is missing, expected the name of the environment variable that \
                           holds the token";
            return Err(ConfigError::new(&path.field("token_env"), problem));
        }
        (None, Some(_)) => {
            let problem = "given without `path`, expected both or none";
            return Err(ConfigError::new(&path.field("token_env"), problem));
        }
    };
    Ok(Inspector {
        events: u32::try_from(events).unwrap_or(MOST_EVENTS),
        place,
        records: !sources.is_empty(),
    })
}

#[cold]
#[inline(never)]
fn place(
    path: &Path,
    text: &str,
    variable: &str,
    sources: &[Source],
    environment: Environment<'_>,
) -> Result<Place, ConfigError> {
    let token_path = path.field("token_env");
    let path = path.field("path");
    if !is_path(text) || text.ends_with('/') {
        let problem = "expected a path that begins with `/` and does not end with it, without \
                       query, fragment and space";
        return Err(ConfigError::new(&path, problem));
    }
    let token = self::variable(&token_path, variable, environment)?;
    let is_token = |byte: &u8| byte.is_ascii_graphic();
    let length = token.len();
    if !(LEAST_TOKEN..=MOST_TOKEN).contains(&length) || !token.iter().all(is_token) {
        let problem = format!(
            "the token has {length} bytes, expected {LEAST_TOKEN} to {MOST_TOKEN} visible \
             ASCII characters, no space"
        );
        return Err(ConfigError::new(&token_path, problem));
    }
    let Some(token) = Token::new(&token) else {
        return Err(ConfigError::new(&token_path, "the token is empty"));
    };
    let place = Place::new(text, token);
    for taken in place.paths() {
        let collides = |source: &Source| source.route.path.matches(taken.as_bytes());
        if let Some(index) = sources.iter().position(collides) {
            let problem = format!("`{taken}` is a path of sources[{index}] too");
            return Err(ConfigError::new(&path, problem));
        }
    }
    Ok(place)
}
