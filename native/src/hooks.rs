//! The functions that Envoy calls.
//!
//! No panic leaves this file: a request on which this module fails is answered with 500, and counted.
#![allow(unsafe_code, reason = "the border to Envoy")]

use core::ffi::c_void;
use core::ptr;
use core::slice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::abi::*;
use crate::config::Config;
use crate::envoy::{self, Filter, from_envoy};
use crate::stream::Stream;

macro_rules! export {
    ($($symbol:ident = $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $symbol($($argument: $type),*) -> $result {
                // SAFETY: Envoy calls as its header promises.
                unsafe { $name($($argument),*) }
            }
        )*
    };
}
for_each_hook!(export);

/// Runs `body`; a panic in it is logged, and `otherwise` is the result.
fn caught<T>(body: impl FnOnce() -> T, otherwise: impl FnOnce() -> T) -> T {
    // What a panic leaves behind is looked at with care: workers are behind locks that it poisons.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let line = format!("callback-guard: panicked: {}", text.unwrap_or("no message"));
        envoy::log(LogLevel::Critical, &line);
        // A panic while it is dropped would be one more.
        core::mem::forget(panic);
        otherwise()
    })
}

/// Runs a hook of a request; if it panics the request is refused.
///
/// # Safety
///
/// `filter` and `module` are those of the stream whose hook runs.
unsafe fn of_request<T>(
    filter: EnvoyFilter,
    module: ModuleFilter,
    stop: T,
    hook: impl FnOnce(Rc<Stream>, &mut Filter) -> T,
) -> T {
    // SAFETY: as the caller promises.
    let (mut filter, stream) = unsafe { (Filter::new(filter), stream_of(module)) };
    let known = stream.clone();
    match caught(|| Some(hook(stream, &mut filter)), || None) {
        Some(result) => result,
        None => {
            caught(|| known.failed(&mut filter), || ());
            stop
        }
    }
}

/// The stream of a hook. It lives as long as the hook, even if Envoy destroys it meanwhile.
///
/// # Safety
///
/// `module` was returned by [`filter_new`], and [`filter_destroy`] has not been called for it.
unsafe fn stream_of(module: ModuleFilter) -> Rc<Stream> {
    let stream = module.cast::<Stream>();
    // SAFETY: `filter_new` has made it of an `Rc`, and its count is that of the filter.
    unsafe {
        Rc::increment_strong_count(stream);
        Rc::from_raw(stream)
    }
}

/// The configuration of a hook.
///
/// # Safety
///
/// `module` was returned by [`config_new`], and [`config_destroy`] has not been called for it.
unsafe fn config_of(module: ModuleConfig) -> Arc<Config> {
    let config = module.cast::<Config>();
    // SAFETY: `config_new` has made it of an `Arc`, and its count is that of the configuration.
    unsafe {
        Arc::increment_strong_count(config);
        Arc::from_raw(config)
    }
}

unsafe fn program_init() -> AbiVersion {
    // What a panic says goes to Envoy's log, not to the standard error.
    std::panic::set_hook(Box::new(|info| {
        if let Some(place) = info.location() {
            envoy::log(
                LogLevel::Critical,
                &format!("callback-guard: panic at {place}"),
            );
        }
    }));
    VERSION.as_ptr()
}

unsafe fn config_new(config: EnvoyConfig, name: EnvoyBuffer, text: EnvoyBuffer) -> ModuleConfig {
    let load = || {
        // SAFETY: Envoy keeps the configuration until it is destroyed, the bytes until this returns, and calls
        // this on the main thread.
        let (envoy, threads, name, text) = unsafe {
            (
                envoy::Config::new(config),
                envoy::concurrency(),
                from_envoy(name.ptr, name.length),
                from_envoy(text.ptr, text.length),
            )
        };
        let threads = usize::try_from(threads).unwrap_or(0);
        let config = Config::load(envoy, threads, name, text)?;
        let started = config.start();
        started.map_err(|error| format!("no thread can be started: {error}"))?;
        Ok::<_, String>(config)
    };
    match caught(load, || Err("the module failed".to_owned())) {
        Ok(config) => Arc::into_raw(config).cast::<c_void>(),
        Err(problem) => {
            let line = format!("callback-guard: configuration refused: {problem}");
            envoy::log(LogLevel::Error, &line);
            ptr::null()
        }
    }
}

unsafe fn config_destroy(config: ModuleConfig) {
    if config.is_null() {
        return;
    }
    // SAFETY: `config_new` has made it of an `Arc`, and this takes the count of the configuration.
    let config = unsafe { Arc::from_raw(config.cast::<Config>()) };
    caught(|| config.close(), || ());
}

unsafe fn config_scheduled(_: EnvoyConfig, config: ModuleConfig, _: u64) {
    // SAFETY: the configuration's hook runs.
    let config = unsafe { config_of(config) };
    caught(|| config.shared.calls.run(&*config), || ());
}

#[allow(clippy::too_many_arguments, reason = "the header's")]
unsafe fn config_callout_done(
    _: EnvoyConfig,
    config: ModuleConfig,
    id: u64,
    _: CalloutResult,
    headers: *mut EnvoyHeader,
    headers_length: usize,
    chunks: *mut EnvoyBuffer,
    chunks_length: usize,
) {
    // SAFETY: the configuration's hook runs; Envoy keeps headers and pieces until it returns.
    let (config, headers, chunks) = unsafe {
        (
            config_of(config),
            list(headers, headers_length),
            list(chunks, chunks_length),
        )
    };
    // SAFETY: as above.
    let bytes = |ptr, length| unsafe { from_envoy(ptr, length) };
    caught(
        || {
            let headers: Vec<(&[u8], &[u8])> = headers
                .iter()
                .map(|header| {
                    (
                        bytes(header.key_ptr, header.key_length),
                        bytes(header.value_ptr, header.value_length),
                    )
                })
                .collect();
            let pieces = chunks.iter().map(|chunk| bytes(chunk.ptr, chunk.length));
            config.shared.calls.done(&*config, id, &headers, pieces);
        },
        || (),
    );
}

/// A list of Envoy's, for as long as `'e`.
///
/// # Safety
///
/// There are `length` values at `first`, and they stay for `'e`.
unsafe fn list<'e, T>(first: *const T, length: usize) -> &'e [T] {
    if first.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(first, length) }
}

unsafe fn filter_new(config: ModuleConfig, filter: EnvoyFilter) -> ModuleFilter {
    // SAFETY: the configuration outlives its filters, and the filter's hook runs.
    let (config, filter) = unsafe { (config_of(config), Filter::new(filter)) };
    // Never null: Envoy would call the hooks all the same.
    let stream = caught(
        || Stream::new(&config, &filter),
        || Stream::unknown(&config),
    );
    Rc::into_raw(Rc::new(stream)).cast::<c_void>()
}

unsafe fn request_headers(
    filter: EnvoyFilter,
    module: ModuleFilter,
    ends: bool,
) -> RequestHeadersStatus {
    let stop = RequestHeadersStatus::StopIteration;
    // SAFETY: the stream's hook runs.
    unsafe {
        of_request(filter, module, stop, |stream, filter| {
            stream.request_headers(filter, ends)
        })
    }
}

unsafe fn request_body(filter: EnvoyFilter, module: ModuleFilter, ends: bool) -> RequestBodyStatus {
    let stop = RequestBodyStatus::StopIterationNoBuffer;
    // SAFETY: the stream's hook runs.
    unsafe {
        of_request(filter, module, stop, |stream, filter| {
            stream.request_body(filter, ends)
        })
    }
}

unsafe fn request_trailers(filter: EnvoyFilter, module: ModuleFilter) -> RequestTrailersStatus {
    let stop = RequestTrailersStatus::StopIteration;
    // SAFETY: the stream's hook runs.
    unsafe { of_request(filter, module, stop, Stream::request_trailers) }
}

unsafe fn response_headers(
    filter: EnvoyFilter,
    module: ModuleFilter,
    _: bool,
) -> ResponseHeadersStatus {
    // A response that is held for ever is worse than one that is not settled: its lease ends.
    let go_on = ResponseHeadersStatus::Continue;
    // SAFETY: the stream's hook runs.
    unsafe { of_response(filter, module, go_on, Stream::response_headers) }
}

unsafe fn response_body(filter: EnvoyFilter, module: ModuleFilter, _: bool) -> ResponseBodyStatus {
    // SAFETY: the stream's hook runs.
    unsafe {
        of_response(
            filter,
            module,
            ResponseBodyStatus::Continue,
            Stream::response_body,
        )
    }
}

unsafe fn response_trailers(filter: EnvoyFilter, module: ModuleFilter) -> ResponseTrailersStatus {
    let go_on = ResponseTrailersStatus::Continue;
    // SAFETY: the stream's hook runs.
    unsafe {
        of_response(filter, module, go_on, |stream, _| {
            stream.response_trailers()
        })
    }
}

/// Runs a hook of a response, or of the end of a stream.
///
/// # Safety
///
/// As for [`of_request`].
unsafe fn of_response<T>(
    filter: EnvoyFilter,
    module: ModuleFilter,
    go_on: T,
    hook: impl FnOnce(Rc<Stream>, &mut Filter) -> T,
) -> T {
    // SAFETY: as the caller promises.
    let (mut filter, stream) = unsafe { (Filter::new(filter), stream_of(module)) };
    caught(|| hook(stream, &mut filter), || go_on)
}

unsafe fn filter_scheduled(filter: EnvoyFilter, module: ModuleFilter, _: u64) {
    // SAFETY: the stream's hook runs.
    unsafe { of_request(filter, module, (), Stream::scheduled) }
}

unsafe fn stream_complete(filter: EnvoyFilter, module: ModuleFilter) {
    // SAFETY: the stream's hook runs.
    unsafe { of_response(filter, module, (), Stream::complete) }
}

unsafe fn filter_destroy(module: ModuleFilter) {
    if module.is_null() {
        return;
    }
    // SAFETY: `filter_new` has made it of an `Rc`, and this takes the count of the filter.
    let stream = unsafe { Rc::from_raw(module.cast::<Stream>()) };
    caught(|| stream.destroy(), || ());
}

#[allow(clippy::too_many_arguments, reason = "the header's")]
unsafe fn unused_callout_done(
    _: EnvoyFilter,
    _: ModuleFilter,
    _: u64,
    _: CalloutResult,
    _: *mut EnvoyHeader,
    _: usize,
    _: *mut EnvoyBuffer,
    _: usize,
) {
}

unsafe fn unused_stream_headers(
    _: EnvoyFilter,
    _: ModuleFilter,
    _: u64,
    _: *mut EnvoyHeader,
    _: usize,
    _: bool,
) {
}

unsafe fn unused_stream_data(
    _: EnvoyFilter,
    _: ModuleFilter,
    _: u64,
    _: *const EnvoyBuffer,
    _: usize,
    _: bool,
) {
}

unsafe fn unused_stream_trailers(
    _: EnvoyFilter,
    _: ModuleFilter,
    _: u64,
    _: *mut EnvoyHeader,
    _: usize,
) {
}

unsafe fn unused_stream_complete(_: EnvoyFilter, _: ModuleFilter, _: u64) {}

unsafe fn unused_stream_reset(_: EnvoyFilter, _: ModuleFilter, _: u64, _: StreamResetReason) {}

unsafe fn unused_above_watermark(_: EnvoyFilter, _: ModuleFilter) {}

unsafe fn unused_below_watermark(_: EnvoyFilter, _: ModuleFilter) {}
