//! Envoy's functions, as calls that are safe and do not panic.
#![allow(unsafe_code, reason = "the border to Envoy")]

use core::ptr;
use core::slice;

use crate::abi::{
    self, Attribute, BodyType, CalloutInit, ConfigScheduler, EnvoyBuffer, EnvoyConfig, EnvoyFilter,
    EnvoyHeader, FilterScheduler, HeaderType, LogLevel, MetricsResult, ModuleBuffer, ModuleHeader,
};
use callback_guard_core::metrics::Kind;

/// Envoy refused what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

fn to_envoy(bytes: &[u8]) -> ModuleBuffer {
    ModuleBuffer {
        ptr: bytes.as_ptr(),
        length: bytes.len(),
    }
}

/// Null and nothing, which removes a header.
const NOTHING: ModuleBuffer = ModuleBuffer {
    ptr: ptr::null(),
    length: 0,
};

/// Bytes of Envoy, for as long as `'e`.
///
/// # Safety
///
/// Envoy has said that there are `length` bytes at `ptr`, and that they stay for `'e`.
pub(crate) unsafe fn from_envoy<'e>(ptr: *const u8, length: usize) -> &'e [u8] {
    if ptr.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(ptr, length) }
}

fn done(succeeded: bool) -> Result<(), Refused> {
    if succeeded { Ok(()) } else { Err(Refused) }
}

/// Whether lines of this level are written.
pub(crate) fn logs(level: LogLevel) -> bool {
    // SAFETY: no address is handed over.
    unsafe { abi::envoy_dynamic_module_callback_log_enabled(level) }
}

/// Writes a line to Envoy's log.
pub(crate) fn log(level: LogLevel, line: &str) {
    // SAFETY: address and length are those of a live string.
    unsafe { abi::envoy_dynamic_module_callback_log(level, to_envoy(line.as_bytes())) };
}

/// Writes a line of the guard's, if lines of this level are written.
pub(crate) fn say(level: LogLevel, line: impl FnOnce() -> String) {
    if logs(level) {
        log(level, &format!("callback-guard: {}", line()));
    }
}

/// Number of worker threads.
///
/// # Safety
///
/// On the main thread only.
pub(crate) unsafe fn concurrency() -> u32 {
    // SAFETY: as the caller promises.
    unsafe { abi::envoy_dynamic_module_callback_get_concurrency() }
}

/// A filter configuration of Envoy.
///
/// It can be used while the module's own configuration lives, on any thread but where a function says
/// otherwise: Envoy's counters and gauges are atomic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config(EnvoyConfig);

// SAFETY: Envoy's object has no state that these functions change without a lock of its own.
unsafe impl Send for Config {}
// SAFETY: as above.
unsafe impl Sync for Config {}

impl Config {
    /// # Safety
    ///
    /// `config` is one that Envoy has handed over and not yet destroyed, now and for every use.
    pub(crate) unsafe fn new(config: EnvoyConfig) -> Self {
        Self(config)
    }

    /// Defines a metric. Only while the configuration is loaded.
    pub(crate) fn define(self, kind: Kind, name: &str) -> Option<usize> {
        let define = match kind {
            Kind::Counter => abi::envoy_dynamic_module_callback_http_filter_config_define_counter,
            Kind::Gauge => abi::envoy_dynamic_module_callback_http_filter_config_define_gauge,
            Kind::Histogram => {
                abi::envoy_dynamic_module_callback_http_filter_config_define_histogram
            }
        };
        let mut id = 0;
        // SAFETY: the configuration lives; the addresses are those of a live string and number, and
        // null for no labels.
        let result = unsafe {
            define(
                self.0,
                to_envoy(name.as_bytes()),
                ptr::null_mut(),
                0,
                &raw mut id,
            )
        };
        (result == MetricsResult::Success).then_some(id)
    }

    /// Adds to a counter or a gauge.
    pub(crate) fn add(self, kind: Kind, id: usize, by: i64) {
        let change = match (kind, by) {
            (Kind::Counter, 1..) => {
                abi::envoy_dynamic_module_callback_http_filter_config_increment_counter
            }
            (Kind::Gauge, 1..) => {
                abi::envoy_dynamic_module_callback_http_filter_config_increment_gauge
            }
            (Kind::Gauge, ..=-1) => {
                abi::envoy_dynamic_module_callback_http_filter_config_decrement_gauge
            }
            (Kind::Counter | Kind::Gauge, _) | (Kind::Histogram, _) => return,
        };
        // SAFETY: the configuration lives; null means no labels. A metric that Envoy does not
        // take is no reason to fail.
        unsafe { change(self.0, id, ptr::null_mut(), 0, by.unsigned_abs()) };
    }

    /// Sets a gauge.
    pub(crate) fn set(self, id: usize, value: u64) {
        // SAFETY: as in `add`.
        unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_set_gauge(
                self.0,
                id,
                ptr::null_mut(),
                0,
                value,
            )
        };
    }

    /// Puts a value into a histogram. Only on a thread of Envoy's.
    pub(crate) fn record(self, id: usize, value: u64) {
        // SAFETY: as in `add`.
        unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_record_histogram_value(
                self.0,
                id,
                ptr::null_mut(),
                0,
                value,
            )
        };
    }

    /// Subscribes to a generic secret, or to one of Envoy's static ones. Only while the configuration is loaded.
    /// Returns its number; `None` if Envoy refuses, and has said in its log why.
    pub(crate) fn subscribe(self, name: &str, config_source: Option<&str>) -> Option<usize> {
        let source = config_source.unwrap_or_default();
        // SAFETY: the configuration lives; addresses and lengths are those of live strings.
        let id = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_generic_secret_subscribe(
                self.0,
                to_envoy(name.as_bytes()),
                to_envoy(source.as_bytes()),
            )
        };
        (id != 0).then_some(id)
    }

    /// What has been delivered of a secret; empty if nothing has. Only on a thread of Envoy's.
    pub(crate) fn secret(self, id: usize) -> Vec<u8> {
        let mut value = EnvoyBuffer {
            ptr: ptr::null(),
            length: 0,
        };
        // SAFETY: the configuration lives; the address is that of a live value.
        let is_there = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_get_generic_secret(
                self.0,
                id,
                &raw mut value,
            )
        };
        // SAFETY: Envoy changes the secret between hooks alone, and here it is copied.
        let bytes = is_there.then(|| unsafe { from_envoy(value.ptr, value.length).to_vec() });
        bytes.unwrap_or_default()
    }

    /// POSTs `body` to a cluster. Only on the main thread. Returns the number of the call.
    pub(crate) fn call(
        self,
        cluster: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        timeout_millis: u64,
    ) -> Option<u64> {
        let mut headers = to_envoy_headers(headers);
        let mut id = 0;
        // SAFETY: the configuration lives; addresses and lengths are those of live values.
        let result = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_http_callout(
                self.0,
                &raw mut id,
                to_envoy(cluster.as_bytes()),
                headers.as_mut_ptr(),
                headers.len(),
                to_envoy(body),
                timeout_millis,
            )
        };
        (result == CalloutInit::Success).then_some(id)
    }

    /// A way to this configuration from any thread.
    pub(crate) fn waker(self) -> ConfigWaker {
        // SAFETY: the configuration lives.
        ConfigWaker(unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_scheduler_new(self.0)
        })
    }
}

fn to_envoy_headers(headers: &[(&str, &str)]) -> Vec<ModuleHeader> {
    let header = |(name, value): &(&str, &str)| ModuleHeader {
        key_ptr: name.as_ptr(),
        key_length: name.len(),
        value_ptr: value.as_ptr(),
        value_length: value.len(),
    };
    headers.iter().map(header).collect()
}

/// A way to a filter configuration, on the main thread, from any thread.
#[derive(Debug)]
pub(crate) struct ConfigWaker(ConfigScheduler);

// SAFETY: Envoy's scheduler is made to be used from any thread.
unsafe impl Send for ConfigWaker {}
// SAFETY: as above.
unsafe impl Sync for ConfigWaker {}

impl ConfigWaker {
    /// Has Envoy call the configuration's hook.
    pub(crate) fn wake(&self) {
        // SAFETY: the scheduler lives as long as this value.
        unsafe {
            abi::envoy_dynamic_module_callback_http_filter_config_scheduler_commit(self.0, 0);
        }
    }
}

impl Drop for ConfigWaker {
    fn drop(&mut self) {
        // SAFETY: nobody else has this scheduler.
        unsafe { abi::envoy_dynamic_module_callback_http_filter_config_scheduler_delete(self.0) };
    }
}

/// A way to a filter, on its thread, from any thread.
#[derive(Debug)]
pub(crate) struct Waker(FilterScheduler);

// SAFETY: Envoy's scheduler is made to be used from any thread.
unsafe impl Send for Waker {}

impl Waker {
    /// Has Envoy call the filter's hook; nothing happens if it is gone.
    pub(crate) fn wake(&self) {
        // SAFETY: the scheduler lives as long as this value.
        unsafe { abi::envoy_dynamic_module_callback_http_filter_scheduler_commit(self.0, 0) };
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // SAFETY: nobody else has this scheduler.
        unsafe { abi::envoy_dynamic_module_callback_http_filter_scheduler_delete(self.0) };
    }
}

/// Headers of Envoy: names and values.
pub(crate) type Pairs<'f> = Vec<(&'f [u8], &'f [u8])>;

/// A filter of Envoy, on its own thread, during one hook.
///
/// What it hands out is Envoy's, and stays as it is until the filter is changed or the hook ends: so it
/// borrows from this value, and whatever may change something takes it mutably.
#[derive(Debug)]
pub(crate) struct Filter(EnvoyFilter);

impl Filter {
    /// # Safety
    ///
    /// `filter` is the one whose hook runs, and this value does not outlive the hook.
    pub(crate) unsafe fn new(filter: EnvoyFilter) -> Self {
        Self(filter)
    }

    /// The number of the thread.
    pub(crate) fn worker_index(&self) -> usize {
        // SAFETY: the filter's hook runs.
        let index =
            unsafe { abi::envoy_dynamic_module_callback_http_filter_get_worker_index(self.0) };
        usize::try_from(index).unwrap_or(usize::MAX)
    }

    /// All headers, or trailers.
    pub(crate) fn headers(&self, which: HeaderType) -> Result<Pairs<'_>, Refused> {
        // SAFETY: the filter's hook runs.
        let count =
            unsafe { abi::envoy_dynamic_module_callback_http_get_headers_size(self.0, which) };
        if count == 0 {
            return Ok(Vec::new());
        }
        let empty = EnvoyHeader {
            key_ptr: ptr::null(),
            key_length: 0,
            value_ptr: ptr::null(),
            value_length: 0,
        };
        let mut headers = vec![empty; count];
        // SAFETY: the filter's hook runs, and there is room for as many headers as there are.
        done(unsafe {
            abi::envoy_dynamic_module_callback_http_get_headers(self.0, which, headers.as_mut_ptr())
        })?;
        let pair = |header: &EnvoyHeader| {
            // SAFETY: Envoy keeps the bytes until the end of the hook or the next change.
            unsafe {
                (
                    from_envoy(header.key_ptr, header.key_length),
                    from_envoy(header.value_ptr, header.value_length),
                )
            }
        };
        Ok(headers.iter().map(pair).collect())
    }

    /// Sets a header in place of all of its name.
    pub(crate) fn set_header(
        &mut self,
        which: HeaderType,
        name: &str,
        value: &[u8],
    ) -> Result<(), Refused> {
        // A null value would remove the header; that of an empty slice is not null.
        // SAFETY: the filter's hook runs; addresses and lengths are those of live slices.
        done(unsafe {
            abi::envoy_dynamic_module_callback_http_set_header(
                self.0,
                which,
                to_envoy(name.as_bytes()),
                to_envoy(value),
            )
        })
    }

    /// Removes all headers of a name.
    pub(crate) fn remove_header(&mut self, which: HeaderType, name: &[u8]) -> Result<(), Refused> {
        // SAFETY: the filter's hook runs; address and length are those of a live slice.
        done(unsafe {
            abi::envoy_dynamic_module_callback_http_set_header(
                self.0,
                which,
                to_envoy(name),
                NOTHING,
            )
        })
    }

    /// Bytes of a body that are there.
    pub(crate) fn body_size(&self, which: BodyType) -> usize {
        // SAFETY: the filter's hook runs.
        unsafe { abi::envoy_dynamic_module_callback_http_get_body_size(self.0, which) }
    }

    /// Whether what is received is what a filter before has buffered.
    pub(crate) fn receives_buffered(&self) -> bool {
        // SAFETY: the filter's hook runs.
        unsafe { abi::envoy_dynamic_module_callback_http_received_buffered_request_body(self.0) }
    }

    /// The pieces of a body, in order; those that are empty are left out. `None` if Envoy does not hand them
    /// over.
    pub(crate) fn body(&self, which: BodyType) -> Option<Vec<&[u8]>> {
        // SAFETY: the filter's hook runs.
        let count =
            unsafe { abi::envoy_dynamic_module_callback_http_get_body_chunks_size(self.0, which) };
        if count == 0 {
            return Some(Vec::new());
        }
        let empty = EnvoyBuffer {
            ptr: ptr::null(),
            length: 0,
        };
        let mut chunks = vec![empty; count];
        // SAFETY: the filter's hook runs, and there is room for as many pieces as there are.
        let is_there = unsafe {
            abi::envoy_dynamic_module_callback_http_get_body_chunks(
                self.0,
                which,
                chunks.as_mut_ptr(),
            )
        };
        let piece = |chunk: EnvoyBuffer| {
            // SAFETY: Envoy keeps the bytes until the end of the hook or the next change.
            unsafe { from_envoy(chunk.ptr, chunk.length) }
        };
        let pieces = chunks.into_iter().map(piece);
        is_there.then(|| pieces.filter(|piece| !piece.is_empty()).collect())
    }

    /// A number among the attributes of the stream.
    pub(crate) fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: the filter's hook runs; the address is that of a live number.
        let is_there = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_get_attribute_int(
                self.0,
                attribute,
                &raw mut value,
            )
        };
        is_there.then_some(value)
    }

    /// A text among the attributes of the stream.
    pub(crate) fn text(&self, attribute: Attribute) -> Option<&[u8]> {
        let mut value = EnvoyBuffer {
            ptr: ptr::null(),
            length: 0,
        };
        // SAFETY: the filter's hook runs; the address is that of a live value.
        let is_there = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.0,
                attribute,
                &raw mut value,
            )
        };
        // SAFETY: Envoy keeps the bytes until the end of the hook.
        is_there.then(|| unsafe { from_envoy(value.ptr, value.length) })
    }

    /// What has been delivered of a secret; empty if nothing has.
    pub(crate) fn secret(&self, id: usize) -> &[u8] {
        let mut value = EnvoyBuffer {
            ptr: ptr::null(),
            length: 0,
        };
        // SAFETY: the filter's hook runs; the address is that of a live value.
        let is_there = unsafe {
            abi::envoy_dynamic_module_callback_http_filter_get_generic_secret(
                self.0,
                id,
                &raw mut value,
            )
        };
        // SAFETY: Envoy changes the secret between hooks alone.
        let bytes = is_there.then(|| unsafe { from_envoy(value.ptr, value.length) });
        bytes.unwrap_or_default()
    }

    /// Sets a key of the filter state.
    pub(crate) fn set_state(&mut self, key: &str, value: &str) {
        // An access log without it is no reason to refuse.
        // SAFETY: the filter's hook runs; addresses and lengths are those of live strings.
        unsafe {
            abi::envoy_dynamic_module_callback_http_set_filter_state_bytes(
                self.0,
                to_envoy(key.as_bytes()),
                to_envoy(value.as_bytes()),
            )
        };
    }

    /// Answers the request from here. Envoy may end the stream before this returns.
    pub(crate) fn reply(
        &mut self,
        status: u16,
        headers: &[(&str, &str)],
        body: &[u8],
        details: &str,
    ) {
        let mut headers = to_envoy_headers(headers);
        // SAFETY: the filter's hook runs; addresses and lengths are those of live values.
        unsafe {
            abi::envoy_dynamic_module_callback_http_send_response(
                self.0,
                u32::from(status),
                headers.as_mut_ptr(),
                headers.len(),
                to_envoy(body),
                to_envoy(details.as_bytes()),
            );
        }
    }

    /// Lets a held request go on. Envoy may call further hooks before this returns.
    pub(crate) fn continue_request(&mut self) {
        // SAFETY: the filter's hook runs.
        unsafe { abi::envoy_dynamic_module_callback_http_filter_continue_decoding(self.0) };
    }

    /// Lets a held response go on. Envoy may call further hooks before this returns.
    pub(crate) fn continue_response(&mut self) {
        // SAFETY: the filter's hook runs.
        unsafe { abi::envoy_dynamic_module_callback_http_filter_continue_encoding(self.0) };
    }

    /// A way to this filter from any thread.
    pub(crate) fn waker(&self) -> Waker {
        // SAFETY: the filter's hook runs.
        Waker(unsafe { abi::envoy_dynamic_module_callback_http_filter_scheduler_new(self.0) })
    }
}
