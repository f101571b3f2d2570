//! The host's functions, each as a call that cannot panic.
//!
//! The wrappers of the SDK panic on every status that they do not expect, and a panic is an outage:
//! it kills the VM with all its requests. The imports are the same.
//!
//! Source: proxy-wasm ABI 0.2.1; Envoy 1.40.
#![allow(unsafe_code, reason = "the border to the host")]

use core::ptr;

use callback_guard_core::store::{SharedData, Swap, Unavailable};

/// The host said no: its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused(u32);

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const CAS_MISMATCH: u32 = 8;

unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
    fn proxy_get_log_level(level: *mut u32) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_replace_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_get_property(
        path: *const u8,
        path_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_set_property(
        path: *const u8,
        path_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}

fn check(status: u32) -> Result<(), Refused> {
    if status == OK {
        Ok(())
    } else {
        Err(Refused(status))
    }
}

/// Calls a function that returns bytes through an address and a size.
fn bytes_from(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Refused> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    check(call(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host has asked `proxy_on_memory_allocate` for `size` bytes, which made them as
    // the buffer of a `Vec<u8>` of this capacity, has filled them all, and has given them away.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

/// How serious a log line is, as the host counts.
pub(crate) fn log(level: log::Level, message: &str) {
    let level = match level {
        log::Level::Error => 4,
        log::Level::Warn => 3,
        log::Level::Info => 2,
        log::Level::Debug => 1,
        log::Level::Trace => 0,
    };
    // SAFETY: address and size are those of a live string.
    unsafe { proxy_log(level, message.as_ptr(), message.len()) };
}

/// The level from which on the host keeps log lines.
pub(crate) fn log_level() -> log::LevelFilter {
    let mut level = 2;
    // SAFETY: the address is that of a live number.
    let status = unsafe { proxy_get_log_level(&raw mut level) };
    match level {
        _ if status != OK => log::LevelFilter::Info,
        0 => log::LevelFilter::Trace,
        1 => log::LevelFilter::Debug,
        2 => log::LevelFilter::Info,
        3 => log::LevelFilter::Warn,
        4 => log::LevelFilter::Error,
        _ => log::LevelFilter::Off,
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_nanos() -> Result<u64, Refused> {
    let mut time = 0;
    // SAFETY: the address is that of a live number.
    check(unsafe { proxy_get_current_time_nanoseconds(&raw mut time) })?;
    Ok(time)
}

/// Asks for `on_tick` every `millis` milliseconds; 0 for never.
pub(crate) fn set_tick_period(millis: u32) -> Result<(), Refused> {
    // SAFETY: no address is handed over.
    check(unsafe { proxy_set_tick_period_milliseconds(millis) })
}

/// Makes the calls that follow, until the end of this callback, speak of another stream.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Refused> {
    // SAFETY: no address is handed over.
    check(unsafe { proxy_set_effective_context(context) })
}

/// Lets a paused request go on.
pub(crate) fn resume_request() -> Result<(), Refused> {
    // SAFETY: no address is handed over.
    check(unsafe { proxy_continue_stream(0) })
}

/// Lets a held response go on.
pub(crate) fn resume_response() -> Result<(), Refused> {
    // SAFETY: no address is handed over.
    check(unsafe { proxy_continue_stream(1) })
}

/// The header pairs of the reply to a call-out, serialised.
pub(crate) fn call_header_pairs() -> Result<Vec<u8>, Refused> {
    // SAFETY: the addresses come from `bytes_from`.
    bytes_from(|data, size| unsafe { proxy_get_header_map_pairs(6, data, size) })
}

/// At most `size` bytes of the reply to a call-out.
pub(crate) fn call_body(size: usize) -> Result<Vec<u8>, Refused> {
    buffer(4, size)
}

/// The configuration of the plugin.
pub(crate) fn plugin_configuration() -> Result<Vec<u8>, Refused> {
    buffer(7, usize::MAX)
}

/// The first `size` bytes of the request body.
pub(crate) fn request_body(size: usize) -> Result<Vec<u8>, Refused> {
    buffer(0, size)
}

fn buffer(buffer: u32, size: usize) -> Result<Vec<u8>, Refused> {
    // SAFETY: the addresses come from `bytes_from`.
    let result =
        bytes_from(|data, length| unsafe { proxy_get_buffer_bytes(buffer, 0, size, data, length) });
    match result {
        Err(Refused(NOT_FOUND)) => Ok(Vec::new()),
        result => result,
    }
}

/// The request's header pairs, serialised.
pub(crate) fn request_header_pairs() -> Result<Vec<u8>, Refused> {
    // SAFETY: the addresses come from `bytes_from`.
    bytes_from(|data, size| unsafe { proxy_get_header_map_pairs(0, data, size) })
}

/// The pairs of the request's trailers, serialised.
pub(crate) fn request_trailer_pairs() -> Result<Vec<u8>, Refused> {
    // SAFETY: the addresses come from `bytes_from`.
    bytes_from(|data, size| unsafe { proxy_get_header_map_pairs(1, data, size) })
}

/// Removes a trailer from the request.
pub(crate) fn remove_request_trailer(name: &[u8]) -> Result<(), Refused> {
    // SAFETY: address and size are those of a live slice.
    check(unsafe { proxy_remove_header_map_value(1, name.as_ptr(), name.len()) })
}

/// Adds a header to the request.
pub(crate) fn add_request_header(name: &str, value: &[u8]) -> Result<(), Refused> {
    // SAFETY: addresses and sizes are those of live slices.
    check(unsafe {
        proxy_add_header_map_value(0, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Removes a header from the request.
pub(crate) fn remove_request_header(name: &[u8]) -> Result<(), Refused> {
    // SAFETY: address and size are those of a live slice.
    check(unsafe { proxy_remove_header_map_value(0, name.as_ptr(), name.len()) })
}

/// Sets path and query of the request.
pub(crate) fn set_request_target(target: &[u8]) -> Result<(), Refused> {
    let name = ":path";
    // SAFETY: addresses and sizes are those of live slices.
    check(unsafe {
        proxy_replace_header_map_value(0, name.as_ptr(), name.len(), target.as_ptr(), target.len())
    })
}

/// Sets the response's status.
pub(crate) fn set_response_status(status: &str) -> Result<(), Refused> {
    let name = ":status";
    // SAFETY: addresses and sizes are those of live strings.
    check(unsafe {
        proxy_replace_header_map_value(2, name.as_ptr(), name.len(), status.as_ptr(), status.len())
    })
}

/// A property of the stream; `None` if it has none. Parts of the path are joined by zeros.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    // SAFETY: address and size are those of a live string; the others come from `bytes_from`.
    bytes_from(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
        .ok()
}

/// A number among the properties of the stream.
pub(crate) fn number_property(path: &str) -> Option<u64> {
    property(path)?
        .first_chunk()
        .copied()
        .map(u64::from_le_bytes)
}

/// Sets a key of the filter state, as `wasm.<key>`.
pub(crate) fn set_filter_state(key: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: addresses and sizes are those of live strings.
    check(unsafe { proxy_set_property(key.as_ptr(), key.len(), value.as_ptr(), value.len()) })
}

/// Answers the request from here.
pub(crate) fn send_reply(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &[u8],
) -> Result<(), Refused> {
    // SAFETY: addresses and sizes are those of live slices; -1 means no gRPC status.
    check(unsafe {
        proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Calls a function that this host has beyond the ABI; its result.
pub(crate) fn call_foreign_function(name: &str, arguments: &[u8]) -> Result<Vec<u8>, Refused> {
    // SAFETY: addresses and sizes are those of live slices; the others come from `bytes_from`.
    bytes_from(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
}

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// The number of the metric `name`, which is made if it is not there.
pub(crate) fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    let kind = match kind {
        MetricKind::Counter => 0,
        MetricKind::Gauge => 1,
        MetricKind::Histogram => 2,
    };
    let mut id = 0;
    // SAFETY: address and size are those of a live string, and the other of a live number.
    check(unsafe { proxy_define_metric(kind, name.as_ptr(), name.len(), &raw mut id) }).ok()?;
    Some(id)
}

/// Moves a metric by `by`.
pub(crate) fn increment_metric(id: u32, by: i64) {
    // SAFETY: no address is handed over. A metric that the host does not take is no reason to fail.
    unsafe { proxy_increment_metric(id, by) };
}

/// Sets a gauge, or puts a value into a histogram.
pub(crate) fn record_metric(id: u32, value: u64) {
    // SAFETY: no address is handed over. A metric that the host does not take is no reason to fail.
    unsafe { proxy_record_metric(id, value) };
}

/// Envoy's shared data of this VM id.
pub(crate) struct Shared;

impl SharedData for Shared {
    #[inline(never)]
    fn get(&mut self, key: &str) -> Result<(Option<Vec<u8>>, Option<u32>), Unavailable> {
        let mut version = 0;
        // SAFETY: address and size are those of a live string; the others come from `bytes_from`
        // and a live number.
        let value = bytes_from(|data, size| unsafe {
            proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
        });
        match value {
            Ok(value) => Ok((Some(value), Some(version))),
            Err(Refused(NOT_FOUND)) => Ok((None, None)),
            Err(_) => Err(Unavailable),
        }
    }

    #[inline(never)]
    fn set(&mut self, key: &str, value: &[u8], version: u32) -> Result<Swap, Unavailable> {
        // SAFETY: addresses and sizes are those of live slices.
        let status = unsafe {
            proxy_set_shared_data(
                key.as_ptr(),
                key.len(),
                value.as_ptr(),
                value.len(),
                version,
            )
        };
        match status {
            OK => Ok(Swap::Done),
            CAS_MISMATCH => Ok(Swap::Conflict),
            _ => Err(Unavailable),
        }
    }
}
