//! The one record of what is known of a request: metrics, log, access log, inspector, `explain` and
//! the headers towards the upstream are all made of it.
//!
//! It holds no payload, no secret and no signature: the id only once it is verified, and of the
//! payload short words that the dedupe key is made of.

use std::sync::Arc;

use crate::event::EventKey;
use crate::inspector::{Entry, Slot};
use crate::message_id::MessageId;
use crate::policy::{Mode, Source};
use crate::time::UnixMillis;
use crate::verdict::{Code, Rejection};
use crate::words::words;

/// Most bytes of [`Stage`].
const STAGE_BYTES: usize = 60;
/// Most bytes of one word of it.
const WORD_BYTES: usize = 24;

words! {
    /// A check of the guard, in the order in which most requests meet them.
    #[derive(Default)]
    pub enum Check {
        /// A source matches host and path, and nothing nearly.
        #[default]
        Source = "source",
        /// Whether it is a challenge that nobody has to sign; of most requests none.
        Challenge = "challenge",
        /// The method.
        Method = "method",
        /// The content type.
        MediaType = "content type",
        /// The content encoding.
        Encoding = "content encoding",
        /// The declared length.
        Length = "declared length",
        /// Signature and timestamp, or the token, in the head.
        Credentials = "signature, timestamp",
        /// The age of the timestamp.
        Freshness = "freshness",
        /// The other headers that are needed.
        OtherHeaders = "other headers",
        /// The body's length.
        Body = "body size",
        /// The JSON.
        Json = "JSON",
        /// The message id.
        Id = "message id",
        /// The signature, or a token in the body.
        Mac = "MAC",
        /// Whether it is a challenge that has to be authentic; of most requests none.
        AuthenticChallenge = "challenge",
        /// The payload's own rules.
        Payload = "payload rules",
        /// The event's key.
        Event = "event",
    }
}

/// What is known of a request so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The check that is being made, or was made last: of a refused request the one that it failed.
    pub check: Check,
    /// The source that it belongs to.
    pub source: Option<Arc<Source>>,
    /// The verdict, once there is one.
    pub verdict: Option<Code>,
    /// The refusal behind the verdict, with its numbers; in monitor mode, too.
    pub rejection: Option<Rejection>,
    /// Whether the request goes to the upstream.
    pub is_forwarded: bool,
    /// The message id, once the signature or token has verified it.
    pub id: Option<MessageId>,
    /// The event, once the request is authentic and well formed.
    pub key: Option<EventKey>,
    /// Whether this is a duplicate with another body than the one that was delivered.
    pub body_changed: bool,
    /// Whether it is a new message under the key of a delivered event: an event of its own.
    pub is_new_message: bool,
    /// Age of the timestamp, in seconds; negative if it lies ahead.
    pub age_seconds: Option<i64>,
    /// Bytes of the body, as far as it came.
    pub body_bytes: Option<usize>,
    /// How long the head has been held for its body, and for the claim of another request, in
    /// milliseconds. `None` for requests that are refused by their heads.
    pub held_millis: Option<u64>,
    /// Words of the payload that name the event's stage; kept if the inspector shows them.
    pub stage: Stage,
    /// Where the inspector has it.
    pub(crate) slot: Option<Slot>,
}

impl Report {
    /// Whether verdicts are carried out. What matches no source is never monitored.
    #[must_use]
    pub(crate) fn mode(&self) -> Mode {
        self.source
            .as_ref()
            .map_or(Mode::Enforce, |source| source.mode)
    }

    /// The source's index, for its metrics.
    #[must_use]
    pub fn source_index(&self) -> Option<usize> {
        self.source.as_ref().map(|source| source.index)
    }

    /// Hands each header for the upstream to `add`, which puts it into the request.
    ///
    /// # Errors
    ///
    /// The first one of `add`.
    pub(crate) fn upstream_headers<E>(
        &self,
        mut add: impl FnMut(&'static str, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        add("x-callback-guard-source", source.name.as_bytes())?;
        if let Some(id) = &self.id {
            add("x-callback-guard-id", id.as_str().as_bytes())?;
        }
        if let Some(key) = &self.key {
            add("x-callback-guard-key", &key.hex())?;
        }
        if self.is_new_message {
            add("x-callback-guard-changed", b"true")?;
        }
        match (source.mode, self.verdict) {
            (Mode::Monitor, Some(verdict)) => {
                add("x-callback-guard-verdict", verdict.as_str().as_bytes())
            }
            _ => Ok(()),
        }
    }

    /// What the inspector keeps of it, once there is a verdict; `key` is where it may put digits.
    pub(crate) fn entry<'r>(
        &'r self,
        texts: &'r mut EntryTexts,
        now: UnixMillis,
    ) -> Option<Entry<'r>> {
        let verdict = self.verdict?;
        texts.detail = self
            .rejection
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        texts.key = self.key.map_or_else(String::new, EventKey::to_hex);
        let detail = texts.detail.split_once(": ");
        Some(Entry {
            verified: self.id.is_some(),
            time_unix_ms: now.as_millis(),
            source: self.source.as_ref().map_or("", |source| &source.name),
            verdict: verdict.as_str(),
            detail: detail.map_or("", |(_, detail)| detail),
            sent_on: self.is_forwarded,
            id: self.id.as_ref().map_or("", |id| id.as_str()),
            stage: self.stage.as_str(),
            key: &texts.key,
            age_seconds: self.age_seconds,
            body_bytes: self.body_bytes.and_then(|bytes| bytes.try_into().ok()),
            ..Entry::default()
        })
    }
}

/// Texts that an inspector's entry points to.
#[derive(Debug, Default)]
pub(crate) struct EntryTexts {
    key: String,
    detail: String,
}

/// Words of the payload that tell one event of an id from the next, such as `complete 200`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage(String);

impl Stage {
    /// Adds a value of the dedupe key, if it is a short plain word.
    pub fn add(&mut self, value: &[u8]) {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte);
        let is_word = (1..=WORD_BYTES).contains(&value.len()) && value.iter().all(is_plain);
        if !is_word || self.0.len().saturating_add(value.len()) >= STAGE_BYTES {
            return;
        }
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.extend(value.iter().copied().map(char::from));
    }

    /// The words.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
