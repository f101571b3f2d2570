//! Envoy and an upstream, started together.

use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde_json::Value;

use crate::client::{self, InFlight, Load, Request, Response};
use crate::clock::Clock;
use crate::envoy::{Envoy, Options, Update};
use crate::envoy_binary;
use crate::filter::Filter;
use crate::render::Render;
use crate::upstream::Upstream;

/// The variable that `envoy.yaml` reads the secret from.
pub const SECRET_VARIABLE: &str = "SUNO_WEBHOOK_KEY";

/// The secret, unless a test sets another.
pub const SECRET: &str = "test-webhook-hmac-key";

/// Starts something between Envoy and the upstream at the given address; returns its own.
type Between<'a> = Box<dyn FnOnce(SocketAddr) -> Result<SocketAddr> + 'a>;

/// What is to be started: the repository's `envoy.yaml`, but for what is said here.
#[must_use]
pub struct Setup<'a> {
    between: Option<Between<'a>>,
    render: Render,
    options: Options,
    progress: &'a dyn Fn(&str),
}

impl<'a> Setup<'a> {
    /// The repository's `envoy.yaml` with [`SECRET`], on free ports, with two workers.
    pub fn new() -> Self {
        Self {
            between: None,
            render: Render::repository().on_free_ports().chosen_filter(),
            options: Options::default(),
            progress: &|_| {},
        }
        .env(SECRET_VARIABLE, SECRET)
    }

    /// Sets which build of the guard runs, in place of what `CALLBACK_GUARD_FILTER` says.
    pub fn filter(self, filter: Filter) -> Self {
        self.render(|render| render.filter(filter))
    }

    /// Reports what takes long: downloads and builds.
    pub fn progress(mut self, progress: &'a dyn Fn(&str)) -> Self {
        self.progress = progress;
        self
    }

    /// Changes the guard's configuration.
    pub fn guard(self, edit: impl FnOnce(&mut Value)) -> Self {
        self.render(|render| render.guard(edit))
    }

    /// Leaves the guard out.
    pub fn without_guard(self) -> Self {
        self.render(Render::without_guard)
    }

    /// Changes the Envoy configuration.
    pub fn render(mut self, edit: impl FnOnce(Render) -> Render) -> Self {
        self.render = edit(self.render);
        self
    }

    /// Sets the number of worker threads.
    pub fn workers(mut self, workers: u32) -> Self {
        self.options.workers = workers;
        self
    }

    /// Sets a variable of Envoy's environment, which has no others.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self = self.without_env(name);
        let variable = (name.to_owned(), value.to_owned());
        self.options.environment.push(variable);
        self
    }

    /// Gives Envoy a wall clock of its own.
    pub fn clock(self, clock: &Clock) -> Self {
        let [(library, clock), (ahead, file)] = clock.environment();
        self.env(library, &clock).env(ahead, &file)
    }

    /// Takes a variable out of Envoy's environment.
    pub fn without_env(mut self, name: &str) -> Self {
        self.options.environment.retain(|(key, _)| key != name);
        self
    }

    /// Lets the listener be changed while it serves, by [`Stack::update`].
    pub fn dynamic_listener(mut self) -> Self {
        self.options.dynamic_listener = true;
        self
    }

    /// Changes how Envoy is started.
    pub fn options(mut self, edit: impl FnOnce(&mut Options)) -> Self {
        edit(&mut self.options);
        self
    }

    /// Puts something between Envoy and the upstream: `start` gets the upstream's address and
    /// returns where Envoy shall send to.
    pub fn between(mut self, start: impl FnOnce(SocketAddr) -> Result<SocketAddr> + 'a) -> Self {
        self.between = Some(Box::new(start));
        self
    }

    /// Starts both.
    ///
    /// # Errors
    ///
    /// If there is no Envoy, the filter does not build, or Envoy does not come up.
    pub fn start(self) -> Result<Stack> {
        let binary = envoy_binary::find(self.progress)?;
        let upstream = Upstream::start()?;
        let behind = match self.between {
            Some(start) => start(upstream.address())?,
            None => upstream.address(),
        };
        let render = with_module(self.render, self.progress)?.upstream(behind);
        let envoy = Envoy::start(&binary, &render, &self.options)?;
        Ok(Stack {
            envoy,
            upstream,
            options: self.options,
            render: Mutex::new(render),
        })
    }

    /// Has Envoy check the configuration and starts nothing.
    ///
    /// # Errors
    ///
    /// If there is no Envoy, or the filter does not build.
    pub fn validate(self) -> Result<Output> {
        let binary = envoy_binary::find(self.progress)?;
        let render = with_module(self.render, self.progress)?;
        Envoy::validate(&binary, &render, &self.options)
    }
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Builds the guard and names it, unless there is no guard or a test has named another module.
pub(crate) fn with_module(render: Render, progress: &dyn Fn(&str)) -> Result<Render> {
    let named = render.module_path();
    if named == Render::repository().module_path() && named.is_some() {
        let module = render.chosen().module(progress)?;
        return Ok(render.module(&module));
    }
    Ok(render)
}

/// Envoy and the upstream behind it. Both end with this value.
#[derive(Debug)]
pub struct Stack {
    /// Envoy.
    pub envoy: Envoy,
    /// The application.
    pub upstream: Upstream,
    options: Options,
    render: Mutex<Render>,
}

impl Stack {
    /// Where requests go.
    pub fn address(&self) -> SocketAddr {
        self.envoy.listener_address()
    }

    /// Sends a request over a connection of its own.
    ///
    /// # Errors
    ///
    /// If there is no complete response.
    pub fn send(&self, request: &Request) -> Result<Response> {
        client::send(self.address(), request)
    }

    /// Sends a request over a connection of its own, and does not wait.
    ///
    /// # Errors
    ///
    /// If the system refuses threads.
    pub fn begin(&self, request: &Request) -> Result<InFlight> {
        client::begin(self.address(), request.clone())
    }

    /// Sends all requests and returns the result of each, in the same order.
    ///
    /// # Errors
    ///
    /// If the system refuses threads. A request that fails does so in its own result.
    pub fn send_all(&self, requests: Vec<Request>, load: Load) -> Result<Vec<Result<Response>>> {
        client::send_all(self.address(), requests, load)
    }

    /// Sends bytes as they are and reads one response; `None` if Envoy closes instead.
    ///
    /// # Errors
    ///
    /// If what comes back is no HTTP/1.1.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> Result<Option<Response>> {
        client::raw(self.address(), bytes)
    }

    /// Changes the listener while it serves. The change adds to earlier ones if it is accepted.
    ///
    /// # Errors
    ///
    /// If the change itself fails, or the setup was not for a dynamic listener.
    pub fn update(&self, edit: impl FnOnce(Render) -> Render) -> Result<Update> {
        let mut render = self.render.lock().unwrap_or_else(PoisonError::into_inner);
        let next = edit(render.clone());
        let update = self.envoy.update_listener(&next)?;
        if update == Update::Accepted {
            *render = next;
        }
        Ok(update)
    }

    /// Kills Envoy and starts another one, on other ports, before the same upstream.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.envoy.kill();
        let binary = envoy_binary::find(&|_| {})?;
        let render = self
            .render
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        self.envoy = Envoy::start(&binary, render, &self.options)?;
        Ok(())
    }
}
