//! An HTTP front of Redis, for hosts that can only make HTTP calls: what is posted to it, and where its
//! replies have Redis' own.
//!
//! | | Webdis | Upstash REST |
//! |---|---|---|
//! | request | `POST /`, `EVAL/<script>/2/<key>/<key>/…`, each part percent-encoded | `POST /`, `["EVAL","<script>","2","<key>","<key>",…]` |
//! | claimed | `{"EVAL":null}` | `{"result":null}` |
//! | there already | `{"EVAL":"<value>"}` | `{"result":"<value>"}` |
//! | its id has too many events | `{"EVAL":"full"}` | `{"result":"full"}` |
//! | settled, not ours | `{"EVAL":1}`, `{"EVAL":0}` | `{"result":1}`, `{"result":0}` |
//! | error of Redis | 200, `{"EVAL":[false,"ERR …"]}` | 400, `{"error":"ERR …"}` |
//! | wrong credentials | 401 or 403 | 401, `{"error":"…"}` |
//!
//! Source: Webdis `README.md`; Upstash, "REST API".

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::error::StoreError;
use super::reply::{MAX_REPLY_BYTES, RedisReply};
use super::script::Eval;
use crate::json::{self, Kind, Pointer, Scratch, Selector};

/// What the HTTP front speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Protocol {
    /// The REST form of Upstash, also of serverless-redis-http.
    Upstash,
    /// Webdis.
    Webdis,
}

/// An HTTP front of Redis, as configured.
#[derive(Clone)]
pub struct Front {
    /// What it speaks.
    pub protocol: Protocol,
    /// The Envoy cluster on which it is.
    pub cluster: Box<str>,
    /// The `:authority` of the requests to it.
    pub authority: Box<str>,
    /// The `authorization` header of the requests to it.
    pub authorization: Option<Box<str>>,
    /// The location of the fields in its replies: [`Replies::of`] its protocol.
    pub replies: Replies,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("protocol", &self.protocol)
            .field("cluster", &self.cluster)
            .field("authority", &self.authority)
            .finish_non_exhaustive()
    }
}

impl Front {
    /// The headers of every request.
    #[must_use]
    pub fn headers(&self) -> Vec<(&str, &str)> {
        let content_type = match self.protocol {
            Protocol::Upstash => "application/json",
            Protocol::Webdis => "application/x-www-form-urlencoded",
        };
        let mut headers = vec![
            (":method", "POST"),
            (":path", "/"),
            (":authority", &*self.authority),
            ("content-type", content_type),
        ];
        if let Some(authorization) = &self.authorization {
            headers.push(("authorization", authorization));
        }
        headers
    }

    /// The `authorization` header that carries `token`.
    ///
    /// Source: Webdis, `acl` with `http_basic_auth` (`user:password`); Upstash, "REST API".
    #[must_use]
    pub fn authorization(protocol: Protocol, token: &str) -> Box<str> {
        match protocol {
            Protocol::Upstash => format!("Bearer {token}").into(),
            Protocol::Webdis => format!("Basic {}", STANDARD.encode(token)).into(),
        }
    }

    /// The body of the request that has Redis run a script.
    pub(super) fn body(&self, eval: &Eval) -> String {
        let [event, id] = &eval.keys;
        let mut arguments = vec!["EVAL", eval.script.text(), "2", event, id];
        arguments.extend(eval.arguments.iter().map(|argument| &**argument));
        let mut text = String::with_capacity(512);
        match self.protocol {
            Protocol::Webdis => {
                for (index, argument) in arguments.iter().enumerate() {
                    if index > 0 {
                        text.push('/');
                    }
                    percent_encode(&mut text, argument);
                }
            }
            Protocol::Upstash => {
                // Strings as JSON: this cannot fail.
                text = serde_json::to_string(&arguments).unwrap_or_default();
            }
        }
        text
    }

    /// The reply of Redis, by the front's.
    pub(super) fn read(&self, status: u16, body: &[u8]) -> Result<RedisReply, StoreError> {
        match (status, self.protocol) {
            (200, _) | (400 | 500, Protocol::Upstash) => {}
            (401 | 403, _) => return Err(StoreError::Denied),
            (503, _) => return Err(StoreError::Unreachable),
            (504, _) => return Err(StoreError::Timeout),
            _ => return Err(StoreError::Status),
        }
        if body.len() > MAX_REPLY_BYTES {
            return Err(StoreError::Malformed);
        }
        let mut scratch = Scratch::default();
        let reply =
            json::scan(body, &self.replies.0, &mut scratch).map_err(|_| StoreError::Malformed)?;
        match self.protocol {
            Protocol::Upstash => match (reply.get(Replies::RESULT), reply.get(Replies::ERROR)) {
                (None, Some(error)) if error.kind() == Kind::String => Err(StoreError::Redis),
                (Some(result), None) if status == 200 => redis_reply(result),
                _ => Err(StoreError::Malformed),
            },
            Protocol::Webdis => {
                let result = reply.get(Replies::RESULT).ok_or(StoreError::Malformed)?;
                // The text of an error is not kept: it may quote a value.
                if result.raw().starts_with(b"[false,") {
                    return Err(StoreError::Redis);
                }
                redis_reply(result)
            }
        }
    }
}

/// Numbers are compared as text: scripts answer only 0 and 1.
fn redis_reply(value: json::Value<'_>) -> Result<RedisReply, StoreError> {
    match (value.kind(), value.raw(), value.text()) {
        (Kind::Null, ..) => Ok(RedisReply::Null),
        (Kind::String, _, Some(text)) => Ok(RedisReply::Text(text.into_owned())),
        (_, b"0", _) => Ok(RedisReply::Flag(false)),
        (_, b"1", _) => Ok(RedisReply::Flag(true)),
        _ => Err(StoreError::Malformed),
    }
}

/// Webdis takes the parts of a path apart at `/` and reads a `.` as the start of a format.
fn percent_encode(text: &mut String, argument: &str) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
    for byte in argument.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// The location of the fields in a reply.
#[derive(Clone, Debug)]
pub struct Replies(Selector);

impl Replies {
    const RESULT: usize = 0;
    const ERROR: usize = 1;

    /// As `protocol` has it.
    #[must_use]
    pub fn of(protocol: Protocol) -> Self {
        let names = match protocol {
            Protocol::Upstash => ["/result", "/error"],
            Protocol::Webdis => ["/EVAL", "/error"],
        };
        let pointers: Vec<_> = names
            .iter()
            .filter_map(|name| Pointer::parse(name).ok())
            .collect();
        Self(Selector::new(&pointers, false))
    }
}
