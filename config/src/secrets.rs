//! Secrets, tokens and public keys: from the configuration and the environment to keys that are ready
//! to use. No error shows any of them.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::error::{ConfigError, Path};
use crate::outside::{Build, Outside};
use crate::raw::secrets::{
    RawPublicFormat, RawPublicKey, RawSecret, RawSecretEncoding, RawSecretFormat,
};
use crate::raw::source::RawSource;
use crate::variable::variable;
use crate::warnings::{LEAST_SECRET, Warnings};
#[cfg(feature = "native")]
use callback_guard_core::policy::Subscription;
use callback_guard_core::scheme::keys::{Algorithm, Key, PublicEncoding, SigningKeys, Token};

/// The most secrets, or public keys, that a source may have.
const MAX_SECRETS: usize = 8;

/// What Supabase puts before its secrets, which are Standard Webhooks' but for that.
const SUPABASE: &[u8] = b"v1,whsec_";

/// Secrets are given with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a source is given to check callbacks with.
pub(super) struct Given<'s> {
    outside: Outside<'s>,
    path: Path,
    secrets: &'s [RawSecret],
    public_keys: &'s [RawPublicKey],
    /// How the preset says that they are written.
    secret_format: &'s RawSecretFormat,
    public_format: &'s RawPublicFormat,
}

impl<'s> Given<'s> {
    pub(super) fn new(
        outside: Outside<'s>,
        path: Path,
        source: &'s RawSource,
        secret_format: &'s RawSecretFormat,
        public_format: &'s RawPublicFormat,
    ) -> Self {
        Self {
            outside,
            path,
            secrets: &source.secrets,
            public_keys: &source.public_keys,
            secret_format,
            public_format,
        }
    }

    /// The keys of a signature of `algorithm`.
    pub(super) fn keys(&self, algorithm: Algorithm) -> Result<Vec<Key>, ConfigError> {
        if algorithm.is_asymmetric() {
            return self.public_keys(algorithm);
        }
        self.refuse_public_keys(algorithm.name())?;
        self.read_secrets(|path, bytes| {
            Key::secret(algorithm, bytes).map_err(|error| ConfigError::new(path, error.to_string()))
        })
    }

    /// The tokens that are accepted.
    pub(super) fn tokens(&self) -> Result<Vec<Token>, ConfigError> {
        self.refuse_public_keys("a token")?;
        self.read_secrets(|path, bytes| {
            if bytes.len() < LEAST_SECRET {
                let problem = format!(
                    "the token has {} bytes, which can be guessed, expected at least {LEAST_SECRET} \
                     random ones",
                    bytes.len()
                );
                return Err(ConfigError::new(path, problem));
            }
            Token::new(bytes).ok_or_else(|| ConfigError::new(path, "the secret is empty"))
        })
    }

    /// The same secrets, for those who sign.
    pub(super) fn signing_keys(
        &self,
        algorithm: Option<Algorithm>,
    ) -> Result<SigningKeys, ConfigError> {
        let mut keys = SigningKeys::default();
        if !SigningKeys::ARE_KEPT || algorithm.is_some_and(Algorithm::is_asymmetric) {
            return Ok(keys);
        }
        let path = self.path.field("secrets");
        for (index, raw) in self.secrets.iter().enumerate() {
            if let Some((path, bytes)) = self.secret(&path.index(index), raw)? {
                keys.keep(algorithm, &bytes)
                    .map_err(|error| ConfigError::new(&path, error.to_string()))?;
            }
        }
        Ok(keys)
    }

    fn refuse_public_keys(&self, what: &str) -> Result<(), ConfigError> {
        if self.public_keys.is_empty() {
            return Ok(());
        }
        let problem = format!("{what} has no public key, expected `secrets`");
        Err(ConfigError::new(&self.path.field("public_keys"), problem))
    }

    fn public_keys(&self, algorithm: Algorithm) -> Result<Vec<Key>, ConfigError> {
        if !self.secrets.is_empty() {
            let problem = format!(
                "{} is verified under a public key, expected `public_keys`",
                algorithm.name()
            );
            return Err(ConfigError::new(&self.path.field("secrets"), problem));
        }
        let path = self.path.field("public_keys");
        check_count(&path, self.public_keys.len())?;
        let mut keys = Vec::with_capacity(self.public_keys.len());
        for (index, raw) in self.public_keys.iter().enumerate() {
            keys.extend(self.public_key(&path.index(index), raw, algorithm)?);
        }
        check_some(&path, self.public_keys.is_empty(), keys.is_empty())?;
        Ok(keys)
    }

    fn public_key(
        &self,
        path: &Path,
        raw: &RawPublicKey,
        algorithm: Algorithm,
    ) -> Result<Option<Key>, ConfigError> {
        let Some((path, text)) = self.text(path, &raw.env, &raw.value, raw.optional)? else {
            return Ok(None);
        };
        let (encoding, prefix) = match (raw.encoding, &raw.prefix) {
            (None, None) => (
                self.public_format.encoding,
                self.public_format.prefix.as_deref(),
            ),
            (encoding, prefix) => (encoding, prefix.as_deref()),
        };
        let encoding = encoding.unwrap_or(PublicEncoding::Spki);
        let text = text.trim_ascii();
        let prefix = prefix.unwrap_or_default().as_bytes();
        let text = text.strip_prefix(prefix).unwrap_or(text);
        Key::public(algorithm, text, encoding)
            .map(Some)
            .map_err(|error| ConfigError::new(&path, error.to_string()))
    }

    fn read_secrets<T>(
        &self,
        make: impl Fn(&Path, &[u8]) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let path = self.path.field("secrets");
        check_count(&path, self.secrets.len())?;
        let mut secrets = Vec::with_capacity(self.secrets.len());
        for (index, raw) in self.secrets.iter().enumerate() {
            if let Some((path, bytes)) = self.secret(&path.index(index), raw)? {
                secrets.push(make(&path, &bytes)?);
            }
        }
        // What Envoy has yet to deliver is no mistake of the configuration.
        let are_to_come = self.secrets.iter().any(|raw| raw.sds.is_some());
        check_some(
            &path,
            self.secrets.is_empty(),
            secrets.is_empty() && !are_to_come,
        )?;
        Ok(secrets)
    }

    /// Warns of secrets that were probably not meant to be as they are.
    pub(super) fn warn(&self, warnings: &mut Warnings) -> Result<(), ConfigError> {
        let path = self.path.field("secrets");
        for (index, raw) in self.secrets.iter().enumerate() {
            let path = path.index(index);
            let Some((place, text)) = self.secret_text(&path, raw)? else {
                continue;
            };
            if let Some((_, key)) = self.secret(&path, raw)? {
                warnings.secret(&self.path, &place, &text, key);
            }
        }
        Ok(())
    }

    /// The bytes of a secret, and where they are from.
    fn secret(&self, path: &Path, raw: &RawSecret) -> Result<Option<(Path, Vec<u8>)>, ConfigError> {
        let Some((path, text)) = self.secret_text(path, raw)? else {
            return Ok(None);
        };
        if text.is_empty() {
            return Err(ConfigError::new(&path, "the secret is empty"));
        }
        if text.trim_ascii().is_empty() {
            return Err(ConfigError::new(&path, "the secret is blank"));
        }
        if text.ends_with(b"\n") || text.ends_with(b"\r") {
            return Err(ConfigError::new(&path, "the secret ends with a line break"));
        }
        // If `encoding` or `prefix` is given, the preset's defaults for both are ignored.
        let usual = self.secret_format;
        let (encoding, prefix) = match (raw.encoding, &raw.prefix) {
            (None, None) => (usual.encoding, usual.prefix.as_deref()),
            (encoding, prefix) => (encoding.unwrap_or_default(), prefix.as_deref()),
        };
        // The senders' own libraries take secrets with and without it.
        let prefix = prefix.unwrap_or_default().as_bytes();
        let bare = text.strip_prefix(prefix).unwrap_or(&text);
        let key = match encoding {
            RawSecretEncoding::Utf8 => Some(bare.to_vec()),
            RawSecretEncoding::Hex => hex::decode(bare).ok(),
            RawSecretEncoding::Base64 => BASE64.decode(bare).ok(),
        };
        match key {
            Some(key) => Ok(Some((path, key))),
            None if text.starts_with(SUPABASE) => Err(ConfigError::new(
                &path,
                "the secret begins with `v1,whsec_`, as Supabase writes it, expected \
                 `\"prefix\": \"v1,whsec_\"` and `\"encoding\": \"base64\"` with it",
            )),
            None => Err(ConfigError::new(
                &path,
                format!("the secret is not valid {}", encoding.name()),
            )),
        }
    }

    /// The text of a secret: out of a variable, the configuration itself or Envoy's delivery. There is none where an
    /// optional variable is not set, or Envoy has not delivered it yet.
    fn secret_text(
        &self,
        path: &Path,
        raw: &RawSecret,
    ) -> Result<Option<(Path, Vec<u8>)>, ConfigError> {
        match (&raw.sds, &raw.env, &raw.value) {
            (None, ..) if raw.sds_config.is_some() => Err(ConfigError::new(
                &path.field("sds_config"),
                "given without `sds`, expected both or none",
            )),
            (Some(name), None, None) => self.delivered(path, raw, name),
            (None, Some(_), None) | (None, None, Some(_)) => {
                self.text(path, &raw.env, &raw.value, raw.optional)
            }
            _ => Err(ConfigError::new(
                path,
                "expected `env`, `value` or `sds`, one of the three",
            )),
        }
    }

    #[cfg_attr(
        not(feature = "native"),
        expect(unused_variables, reason = "what is refused is not looked up")
    )]
    fn delivered(
        &self,
        path: &Path,
        raw: &RawSecret,
        name: &str,
    ) -> Result<Option<(Path, Vec<u8>)>, ConfigError> {
        let sds_path = path.field("sds");
        match self.outside.build {
            Build::Module => Err(ConfigError::new(
                &sds_path,
                "needs the native build, libcallback_guard.so: a WebAssembly filter cannot subscribe to \
                 secrets. Expected `env`, such as `{ \"env\": \"SUNO_WEBHOOK_KEY\" }`",
            )),
            #[cfg(feature = "native")]
            Build::Native => {
                if name.is_empty() {
                    let problem = "is empty, expected the name of a secret";
                    return Err(ConfigError::new(&sds_path, problem));
                }
                if raw.optional {
                    let problem = "does nothing with `sds`, expected none: what Envoy has not delivered is \
                                   not there";
                    return Err(ConfigError::new(&path.field("optional"), problem));
                }
                let text = (self.outside.delivered)(&subscription(&sds_path, raw, name));
                Ok(text.map(|text| (sds_path, text)))
            }
        }
    }

    /// What is in the variable or in the configuration itself; nothing for an optional variable that
    /// is not set.
    fn text(
        &self,
        path: &Path,
        env: &Option<String>,
        value: &Option<String>,
        optional: bool,
    ) -> Result<Option<(Path, Vec<u8>)>, ConfigError> {
        match (env, value) {
            (Some(name), None) => {
                let path = path.field("env");
                match (self.outside.environment)(name) {
                    Some(text) => Ok(Some((path, text))),
                    None if optional => Ok(None),
                    None => variable(&path, name, self.outside.environment)
                        .map(|text| Some((path, text))),
                }
            }
            (None, Some(value)) => Ok(Some((path.field("value"), value.as_bytes().to_vec()))),
            _ => Err(ConfigError::new(
                path,
                "expected `env` or `value`, one of the two",
            )),
        }
    }
}

#[cfg(feature = "native")]
fn subscription(path: &Path, raw: &RawSecret, name: &str) -> Subscription {
    let source = raw.sds_config.as_ref();
    Subscription {
        name: name.into(),
        config_source: source.map(|source| source.as_json().into()),
        path: path.0.as_str().into(),
    }
}

/// The secrets that the sources at `path` subscribe to, each once.
#[cfg(feature = "native")]
pub(super) fn subscriptions(path: &Path, sources: &[RawSource]) -> Vec<Subscription> {
    let mut all: Vec<Subscription> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let path = path.index(index).field("secrets");
        for (index, raw) in source.secrets.iter().enumerate() {
            let Some(name) = &raw.sds else { continue };
            let one = subscription(&path.index(index).field("sds"), raw, name);
            if !all.iter().any(|known| known.is_same(&one)) {
                all.push(one);
            }
        }
    }
    all
}

fn check_count(path: &Path, count: usize) -> Result<(), ConfigError> {
    if count > MAX_SECRETS {
        let problem = format!("there are {count}, expected at most {MAX_SECRETS}");
        return Err(ConfigError::new(path, problem));
    }
    Ok(())
}

fn check_some(path: &Path, none_given: bool, none_set: bool) -> Result<(), ConfigError> {
    let problem = match (none_given, none_set) {
        (true, _) => "there is none, expected at least one",
        (false, true) => "none of them is set, expected at least one",
        (false, false) => return Ok(()),
    };
    Err(ConfigError::new(path, problem))
}
