//! Values that the configuration gives to a preset: what a sender has for each of its customers.

use crate::error::{ConfigError, Path};
use crate::raw::source::RawParameters;
use crate::warnings::{self, Warnings};

/// Values that the configuration gives to a preset, each with whether it was used.
pub(super) struct Parameters<'p> {
    path: Path,
    values: Vec<(&'p str, &'p str, bool)>,
}

impl<'p> Parameters<'p> {
    pub(super) fn new(path: Path, values: &'p RawParameters) -> Self {
        let values = values
            .0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str(), false))
            .collect();
        Self { path, values }
    }

    pub(super) fn take(&mut self, name: &str) -> Result<&'p str, ConfigError> {
        let path = self.path.field(name);
        match self.values.iter_mut().find(|(given, _, _)| *given == name) {
            None => Err(ConfigError::new(
                &path,
                "is missing, expected the text that the scheme asks for",
            )),
            Some((_, "", _)) => Err(ConfigError::new(
                &path,
                "is empty, expected the text that the scheme asks for",
            )),
            Some((_, value, is_used)) => {
                *is_used = true;
                Ok(value)
            }
        }
    }

    /// A value that is a token: whoever knows it is believed.
    pub(super) fn take_token(
        &mut self,
        name: &str,
        warnings: &mut Warnings,
    ) -> Result<&'p str, ConfigError> {
        let token = self.take(name)?;
        let path = self.path.field(name);
        if token.trim().is_empty() {
            let problem = "is blank, expected a token that nobody can guess";
            return Err(ConfigError::new(&path, problem));
        }
        warnings::verify_token(&path, token, warnings);
        Ok(token)
    }

    /// Refuses what nobody asked for: a value that its author believes to be part of the message.
    pub(super) fn check_all_used(&self) -> Result<(), ConfigError> {
        match self.values.iter().find(|(_, _, is_used)| !is_used) {
            None => Ok(()),
            Some((name, _, _)) => Err(ConfigError::new(
                &self.path.field(name),
                "is no parameter of this scheme",
            )),
        }
    }
}
