//! The command line. Every flag is an environment variable too: `--max-backlog` is
//! `CALLBACK_GUARD_INBOX_MAX_BACKLOG`.

use std::env;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hyper::header::HeaderName;

use crate::application::Base;
use crate::moment::Moment;
use crate::schedule::Schedule;
use crate::settings::Settings;
use crate::signing::SigningKey;
use crate::store::{Filter, Place, Selector};
use crate::token::{self, BearerToken};

/// Stores each callback that callback-guard has verified, answers at once, and delivers it when the
/// application can take it.
#[derive(Debug, Parser)]
#[command(
    name = "callback-guard-inbox",
    version,
    after_help = "Every flag is also an environment variable: --max-backlog is \
                  CALLBACK_GUARD_INBOX_MAX_BACKLOG.\n\
                  Exit codes: 0 done, 1 not so (no such event), 2 usage, or the store cannot be opened."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take callbacks and deliver them
    Run(Box<RunArgs>),
    /// List events, in the order of arrival
    List(ListArgs),
    /// Show one event: its headers and attempts, or its body
    Show(ShowArgs),
    /// Begin a new series of attempts for events, whatever their state
    Replay(ChangeArgs),
    /// Remove events for good
    Discard(ChangeArgs),
    /// Pause deliveries, until they are resumed; callbacks are still taken
    Pause(PauseArgs),
    /// End pauses
    Resume(PauseArgs),
    /// Count events by state
    Stats(StatsArgs),
}

/// The store.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// sqlite:FILE, or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, env = "CALLBACK_GUARD_INBOX_STORE", hide_env_values = true)]
    pub store: Place,
}

/// Flags of `run`.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "Example:\n  callback-guard-inbox run --store sqlite:inbox.db --to http://127.0.0.1:9000"
)]
pub struct RunArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// The application: path and query of the callback are appended
    #[arg(long, env = "CALLBACK_GUARD_INBOX_TO", value_name = "URL")]
    pub to: Base,
    /// Where callbacks are taken: loopback or a private address, any other only with --token-env
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_LISTEN",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Where /metrics and /healthz are
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_ADMIN",
        default_value = "127.0.0.1:9903"
    )]
    pub admin: SocketAddr,
    /// The environment variable with the token that Envoy sends as `authorization: Bearer`
    #[arg(long, env = "CALLBACK_GUARD_INBOX_TOKEN_ENV", value_name = "NAME")]
    pub token_env: Option<String>,
    /// Headers that are not stored, as the sender's signature; authorization and cookie never are
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_DROP_HEADER",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub drop_header: Vec<HeaderName>,
    /// Events that may wait; one more is answered 503
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_MAX_BACKLOG",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub max_backlog: u64,
    /// Bytes that may wait, as 10GiB or 500MiB
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_MAX_BACKLOG_BYTES",
        default_value = "10GiB",
        value_name = "BYTES"
    )]
    pub max_backlog_bytes: Bytes,
    /// Pauses between attempts: n of them make n + 1 attempts; each gets up to a fifth longer
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_SCHEDULE",
        default_value = Schedule::DEFAULT,
        value_name = "PAUSES"
    )]
    pub schedule: Schedule,
    /// Attempts at once
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_CONCURRENCY",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub concurrency: u16,
    /// The longest attempt
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_TIMEOUT",
        default_value = "30s",
        value_parser = duration
    )]
    pub timeout: Duration,
    /// Attempts per second [default: no limit]
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_RATE",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub rate: Option<u32>,
    /// Which order is kept
    #[arg(long, env = "CALLBACK_GUARD_INBOX_ORDER", default_value = "id")]
    pub order: Order,
    /// The environment variable with a `whsec_` secret: deliveries get Standard Webhooks headers
    #[arg(long, env = "CALLBACK_GUARD_INBOX_SIGN_ENV", value_name = "NAME")]
    pub sign_env: Option<String>,
    /// How long delivered events are kept
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_KEEP",
        default_value = "7d",
        value_parser = duration
    )]
    pub keep: Duration,
    /// How long attempts may take to end after SIGTERM
    #[arg(
        long,
        env = "CALLBACK_GUARD_INBOX_GRACE",
        default_value = "20s",
        value_parser = duration
    )]
    pub grace: Duration,
}

/// Which order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Events of one id, in the order of their arrival
    Id,
    /// None
    None,
}

/// Which events.
#[derive(Clone, Debug, Args)]
pub struct SelectArgs {
    /// Keys of events (x-callback-guard-key)
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
    /// Events of this message id
    #[arg(long)]
    pub id: Option<String>,
    /// Events of this sender
    #[arg(long)]
    pub source: Option<String>,
    /// Events in this state
    #[arg(long)]
    pub state: Option<Filter>,
    /// Events received at this moment or later, as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub since: Option<Moment>,
    /// Events received before this moment
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    pub until: Option<Moment>,
}

impl SelectArgs {
    /// The selection.
    #[must_use]
    pub fn selector(&self) -> Selector {
        Selector {
            keys: self.keys.clone(),
            id: self.id.clone(),
            source: self.source.clone(),
            state: self.state,
            since: self.since,
            until: self.until,
        }
    }

    /// Whether it says anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
            && self.id.is_none()
            && self.source.is_none()
            && self.state.is_none()
            && self.since.is_none()
            && self.until.is_none()
    }
}

/// Flags of `list`.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which events.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}

/// Flags of `show`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which event.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
    /// Print the body's bytes, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub body: bool,
}

/// Flags of `replay` and `discard`.
#[derive(Clone, Debug, Args)]
pub struct ChangeArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Which events.
    #[command(flatten)]
    pub select: SelectArgs,
}

/// Flags of `pause` and `resume`.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Of this sender only; `resume` without it ends all pauses
    #[arg(long)]
    pub source: Option<String>,
}

/// Flags of `stats`.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected bytes, as 500MiB, 10GiB or 1073741824".to_owned();
        let digits = text
            .find(|digit: char| !digit.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit {
            "" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number
            .checked_mul(factor)
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(wrong)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|span| {
            (Duration::from_millis(1)..=Duration::from_secs(3650 * 86_400)).contains(span)
        })
        .ok_or_else(|| {
            "expected a duration of 1 ms or more, as 500ms, 30s, 10m, 2h or 7d".to_owned()
        })
}

fn moment(text: &str) -> Result<Moment, String> {
    humantime::parse_rfc3339(text)
        .map(Moment::from_system)
        .map_err(|_| "expected a moment in UTC, as 2026-01-31T12:00:00Z".to_owned())
}

impl RunArgs {
    /// Checks what concerns more than one flag, and reads the secrets.
    ///
    /// # Errors
    ///
    /// A secret is not there or unfit, or anybody could reach the inbox; never a secret's value.
    pub fn settings(self) -> Result<Settings> {
        let token = match &self.token_env {
            None => None,
            Some(name) => {
                let value = variable("--token-env", name)?;
                let Some(token) = BearerToken::new(&value) else {
                    bail!(
                        "--token-env: environment variable `{name}` is no token: expected {} or more \
                         visible ASCII characters",
                        token::SHORTEST
                    );
                };
                Some(token)
            }
        };
        if token.is_none() && !is_private(self.listen.ip()) {
            bail!(
                "--listen: {} is neither loopback nor private, so anybody could hand over \
                 callbacks that no guard has verified: expected such an address, as 127.0.0.1:8080, \
                 or --token-env",
                self.listen
            );
        }
        let signing_key = match &self.sign_env {
            None => None,
            Some(name) => {
                let value = variable("--sign-env", name)?;
                let key = SigningKey::parse(&value).map_err(|expected| {
                    anyhow::anyhow!("--sign-env: environment variable `{name}`: {expected}")
                })?;
                Some(key)
            }
        };
        Ok(Settings {
            store: self.store.store,
            to: self.to,
            listen: self.listen,
            admin: self.admin,
            token,
            drop_headers: self.drop_header,
            max_backlog: self.max_backlog,
            max_backlog_bytes: self.max_backlog_bytes.0,
            schedule: self.schedule,
            concurrency: usize::from(self.concurrency),
            timeout: self.timeout,
            rate: self.rate,
            in_order: self.order == Order::Id,
            signing_key,
            keep: self.keep,
            grace: self.grace,
        })
    }
}

fn variable(flag: &str, name: &str) -> Result<String> {
    match env::var(name) {
        Ok(value) if !value.trim().is_empty() => Ok(value),
        Ok(_) => bail!("{flag}: environment variable `{name}` is empty"),
        Err(env::VarError::NotPresent) => bail!("{flag}: environment variable `{name}` is not set"),
        Err(env::VarError::NotUnicode(_)) => {
            bail!("{flag}: environment variable `{name}` is no text")
        }
    }
}

/// Loopback, or an address that is not routed on the internet.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_private(IpAddr::V4(address)),
            None => {
                address.is_loopback()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
            }
        },
    }
}
