//! What of Envoy's ABI for dynamic modules this module uses: types, functions of Envoy
//! ([`CALLBACKS`]) and functions that Envoy calls ([`HOOKS`]).
//!
//! Written by hand, for the SDK is in no crate registry and its own interface changes with every
//! Envoy; the ABI does not: since 1.40 a released function or type is never changed in place, only
//! added to. Each macro makes a declaration and, from the same words, an entry of a table that a
//! test holds against the published header (`tests/data/abi.tsv`) and against a real Envoy.
//!
//! Source: envoyproxy/envoy, `source/extensions/dynamic_modules/abi/abi.h`.

use core::ffi::{c_char, c_void};

/// The ABI version that this module says it was made for: that of Envoy 1.40.
pub(crate) const VERSION: &core::ffi::CStr = c"v0.2.0";

/// A version of the ABI, as a C string.
pub(crate) type AbiVersion = *const c_char;
/// An Envoy filter configuration (`DynamicModuleHttpFilterConfig`).
pub(crate) type EnvoyConfig = *mut c_void;
/// A filter configuration of this module.
pub(crate) type ModuleConfig = *const c_void;
/// An Envoy filter, one for each stream (`DynamicModuleHttpFilter`).
pub(crate) type EnvoyFilter = *mut c_void;
/// A filter of this module, one for each stream.
pub(crate) type ModuleFilter = *const c_void;
/// A way to a filter from any thread.
pub(crate) type FilterScheduler = *mut c_void;
/// A way to a filter configuration, on the main thread, from any thread.
pub(crate) type ConfigScheduler = *mut c_void;

/// Bytes of this module that Envoy reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ModuleBuffer {
    /// Where they begin.
    pub(crate) ptr: *const u8,
    /// How many they are.
    pub(crate) length: usize,
}

/// Bytes of Envoy that this module reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnvoyBuffer {
    /// Where they begin.
    pub(crate) ptr: *const u8,
    /// How many they are.
    pub(crate) length: usize,
}

/// A header of this module that Envoy reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ModuleHeader {
    /// Where the name begins.
    pub(crate) key_ptr: *const u8,
    /// How long it is.
    pub(crate) key_length: usize,
    /// Where the value begins.
    pub(crate) value_ptr: *const u8,
    /// How long it is.
    pub(crate) value_length: usize,
}

/// A header of Envoy that this module reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct EnvoyHeader {
    /// Where the name begins.
    pub(crate) key_ptr: *const u8,
    /// How long it is.
    pub(crate) key_length: usize,
    /// Where the value begins.
    pub(crate) value_ptr: *const u8,
    /// How long it is.
    pub(crate) value_length: usize,
}

/// A value of a C enum, as this module passes it or gets it. Not a Rust enum: Envoy may know values
/// that this module does not.
macro_rules! enums {
    ($($(#[$about:meta])* $name:ident { $($value:ident = $number:literal),* $(,)? })*) => {
        $(
            $(#[$about])*
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(crate) struct $name(pub(crate) u32);

            #[allow(non_upper_case_globals, dead_code, missing_docs, reason = "the header's names")]
            impl $name {
                $(pub(crate) const $value: Self = Self($number);)*
            }
        )*

        /// The values of each enum that this module knows.
        #[allow(dead_code, reason = "for the test against the header")]
        pub(crate) const ENUMS: &[(&str, &[(&str, u32)])] = &[
            $((stringify!($name), &[$((stringify!($value), $number)),*])),*
        ];
    };
}

enums! {
    /// How serious a log line is.
    LogLevel { Trace = 0, Debug = 1, Info = 2, Warn = 3, Error = 4, Critical = 5, Off = 6 }
    /// Which headers.
    HeaderType { RequestHeader = 0, RequestTrailer = 1, ResponseHeader = 2, ResponseTrailer = 3 }
    /// Which body.
    BodyType {
        ReceivedRequestBody = 0,
        BufferedRequestBody = 1,
        ReceivedResponseBody = 2,
        BufferedResponseBody = 3,
    }
    /// Whether a metric was defined or changed.
    MetricsResult { Success = 0 }
    /// Whether a call-out was begun.
    CalloutInit { Success = 0 }
    /// Whether a call-out was answered.
    CalloutResult { Success = 0, Reset = 1, ExceedResponseBufferLimit = 2 }
    /// Why a call's stream has ended.
    StreamResetReason {}
    /// What the stream is asked for.
    Attribute {
        RequestPath = 0,
        RequestHost = 2,
        RequestMethod = 4,
        ConnectionId = 28,
        ResponseCode = 15,
        ResponseCodeDetails = 16,
        UpstreamRequestAttemptCount = 53,
    }
    /// What Envoy does after the headers of a request.
    RequestHeadersStatus { Continue = 0, StopIteration = 1 }
    /// What Envoy does after a part of a request's body.
    RequestBodyStatus { Continue = 0, StopIterationAndBuffer = 1, StopIterationNoBuffer = 3 }
    /// What Envoy does after the trailers of a request.
    RequestTrailersStatus { Continue = 0, StopIteration = 1 }
    /// What Envoy does after the headers of a response.
    ResponseHeadersStatus { Continue = 0, StopIteration = 1 }
    /// What Envoy does after a part of a response's body.
    ResponseBodyStatus { Continue = 0, StopIterationAndBuffer = 1 }
    /// What Envoy does after the trailers of a response.
    ResponseTrailersStatus { Continue = 0, StopIteration = 1 }
}

/// A function of the ABI, in the words of this file.
#[allow(dead_code, reason = "for the test against the header")]
pub(crate) struct Signature {
    /// The symbol.
    pub(crate) name: &'static str,
    /// The types of its parameters.
    pub(crate) parameters: &'static [&'static str],
    /// What it returns; `()` for nothing.
    pub(crate) result: &'static str,
}

macro_rules! result_of {
    () => {
        "()"
    };
    ($type:ty) => {
        stringify!($type)
    };
}

macro_rules! callbacks {
    ($($(#[$about:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)*) => {
        unsafe extern "C" {
            $($(#[$about])* pub(crate) fn $name($($argument: $type),*) $(-> $result)?;)*
        }

        /// The functions of Envoy that this module calls.
        #[allow(dead_code, reason = "for the test against the header")]
        pub(crate) const CALLBACKS: &[Signature] = &[
            $(Signature {
                name: stringify!($name),
                parameters: &[$(stringify!($type)),*],
                result: result_of!($($result)?),
            }),*
        ];
    };
}

callbacks! {
    /// Writes a line to Envoy's log, component `dynamic_modules`.
    fn envoy_dynamic_module_callback_log(level: LogLevel, message: ModuleBuffer);
    /// Whether lines of this level are written.
    fn envoy_dynamic_module_callback_log_enabled(level: LogLevel) -> bool;
    /// Number of worker threads. On the main thread only.
    fn envoy_dynamic_module_callback_get_concurrency() -> u32;

    /// Defines a counter while the configuration is loaded.
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: EnvoyConfig,
        name: ModuleBuffer,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> MetricsResult;
    /// Defines a gauge while the configuration is loaded.
    fn envoy_dynamic_module_callback_http_filter_config_define_gauge(
        config: EnvoyConfig,
        name: ModuleBuffer,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> MetricsResult;
    /// Defines a histogram while the configuration is loaded.
    fn envoy_dynamic_module_callback_http_filter_config_define_histogram(
        config: EnvoyConfig,
        name: ModuleBuffer,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        id: *mut usize,
    ) -> MetricsResult;
    /// Adds to a counter.
    fn envoy_dynamic_module_callback_http_filter_config_increment_counter(
        config: EnvoyConfig,
        id: usize,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        value: u64,
    ) -> MetricsResult;
    /// Adds to a gauge.
    fn envoy_dynamic_module_callback_http_filter_config_increment_gauge(
        config: EnvoyConfig,
        id: usize,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        value: u64,
    ) -> MetricsResult;
    /// Takes from a gauge.
    fn envoy_dynamic_module_callback_http_filter_config_decrement_gauge(
        config: EnvoyConfig,
        id: usize,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        value: u64,
    ) -> MetricsResult;
    /// Sets a gauge.
    fn envoy_dynamic_module_callback_http_filter_config_set_gauge(
        config: EnvoyConfig,
        id: usize,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        value: u64,
    ) -> MetricsResult;
    /// Puts a value into a histogram.
    fn envoy_dynamic_module_callback_http_filter_config_record_histogram_value(
        config: EnvoyConfig,
        id: usize,
        labels: *mut ModuleBuffer,
        labels_length: usize,
        value: u64,
    ) -> MetricsResult;

    /// Subscribes to a generic secret, while the configuration is loaded: one of Envoy's static ones, or from an
    /// `envoy.config.core.v3.ConfigSource`, as JSON. Returns its number, from 1; 0 if Envoy refuses.
    fn envoy_dynamic_module_callback_http_filter_config_generic_secret_subscribe(
        config: EnvoyConfig,
        name: ModuleBuffer,
        config_source: ModuleBuffer,
    ) -> usize;
    /// What this thread has of a secret: empty until it is delivered. It lives until the end of the hook.
    fn envoy_dynamic_module_callback_http_filter_config_get_generic_secret(
        config: EnvoyConfig,
        id: usize,
        value: *mut EnvoyBuffer,
    ) -> bool;
    /// What this thread has of a secret, asked for while a request's hook runs.
    fn envoy_dynamic_module_callback_http_filter_get_generic_secret(
        filter: EnvoyFilter,
        id: usize,
        value: *mut EnvoyBuffer,
    ) -> bool;

    /// Number of headers.
    fn envoy_dynamic_module_callback_http_get_headers_size(
        filter: EnvoyFilter,
        which: HeaderType,
    ) -> usize;
    /// All headers. They live until the end of the hook, or until a header is changed.
    fn envoy_dynamic_module_callback_http_get_headers(
        filter: EnvoyFilter,
        which: HeaderType,
        headers: *mut EnvoyHeader,
    ) -> bool;
    /// Sets a header in place of all of its name, or removes those if the value is null.
    fn envoy_dynamic_module_callback_http_set_header(
        filter: EnvoyFilter,
        which: HeaderType,
        name: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool;
    /// Answers the request from here.
    fn envoy_dynamic_module_callback_http_send_response(
        filter: EnvoyFilter,
        status: u32,
        headers: *mut ModuleHeader,
        headers_length: usize,
        body: ModuleBuffer,
        details: ModuleBuffer,
    );
    /// Bytes of a body that are there.
    fn envoy_dynamic_module_callback_http_get_body_size(
        filter: EnvoyFilter,
        which: BodyType,
    ) -> usize;
    /// The pieces of a body. They live until the end of the hook, or until the body is changed.
    fn envoy_dynamic_module_callback_http_get_body_chunks(
        filter: EnvoyFilter,
        which: BodyType,
        chunks: *mut EnvoyBuffer,
    ) -> bool;
    /// Number of pieces of a body.
    fn envoy_dynamic_module_callback_http_get_body_chunks_size(
        filter: EnvoyFilter,
        which: BodyType,
    ) -> usize;
    /// Whether the part of the body that is received is the body that a filter before has buffered.
    fn envoy_dynamic_module_callback_http_received_buffered_request_body(
        filter: EnvoyFilter,
    ) -> bool;
    /// Sets a key of the filter state.
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        filter: EnvoyFilter,
        key: ModuleBuffer,
        value: ModuleBuffer,
    ) -> bool;
    /// An attribute of the stream that is a text.
    fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: EnvoyFilter,
        attribute: Attribute,
        value: *mut EnvoyBuffer,
    ) -> bool;
    /// An attribute of the stream that is a number.
    fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        filter: EnvoyFilter,
        attribute: Attribute,
        value: *mut u64,
    ) -> bool;
    /// Lets a held request go on.
    fn envoy_dynamic_module_callback_http_filter_continue_decoding(filter: EnvoyFilter);
    /// Lets a held response go on.
    fn envoy_dynamic_module_callback_http_filter_continue_encoding(filter: EnvoyFilter);
    /// The number of the worker thread that the filter is on.
    fn envoy_dynamic_module_callback_http_filter_get_worker_index(filter: EnvoyFilter) -> u32;

    /// Makes a way to a filter from any thread.
    fn envoy_dynamic_module_callback_http_filter_scheduler_new(
        filter: EnvoyFilter,
    ) -> FilterScheduler;
    /// Has Envoy call the filter's `scheduled` hook on its thread; nothing happens if it is gone.
    fn envoy_dynamic_module_callback_http_filter_scheduler_commit(
        scheduler: FilterScheduler,
        event: u64,
    );
    /// Ends a way to a filter.
    fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: FilterScheduler);
    /// Makes a way to a configuration from any thread.
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(
        config: EnvoyConfig,
    ) -> ConfigScheduler;
    /// Has Envoy call the configuration's `scheduled` hook on the main thread.
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
        scheduler: ConfigScheduler,
        event: u64,
    );
    /// Ends a way to a configuration.
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(
        scheduler: ConfigScheduler,
    );
    /// Calls a cluster. On the main thread only; the answer comes there as well.
    fn envoy_dynamic_module_callback_http_filter_config_http_callout(
        config: EnvoyConfig,
        id: *mut u64,
        cluster: ModuleBuffer,
        headers: *mut ModuleHeader,
        headers_length: usize,
        body: ModuleBuffer,
        timeout_milliseconds: u64,
    ) -> CalloutInit;
}

/// Hands the functions that Envoy calls to the macro `$with`: symbol, name of the function here,
/// parameters, result.
macro_rules! for_each_hook {
    ($with:ident) => {
        $with! {
            envoy_dynamic_module_on_program_init = program_init() -> AbiVersion;
            envoy_dynamic_module_on_http_filter_config_new = config_new(
                config: EnvoyConfig, name: EnvoyBuffer, text: EnvoyBuffer) -> ModuleConfig;
            envoy_dynamic_module_on_http_filter_config_destroy = config_destroy(
                config: ModuleConfig) -> ();
            envoy_dynamic_module_on_http_filter_config_scheduled = config_scheduled(
                envoy: EnvoyConfig, config: ModuleConfig, event: u64) -> ();
            envoy_dynamic_module_on_http_filter_config_http_callout_done = config_callout_done(
                envoy: EnvoyConfig, config: ModuleConfig, id: u64, result: CalloutResult,
                headers: *mut EnvoyHeader, headers_length: usize,
                chunks: *mut EnvoyBuffer, chunks_length: usize) -> ();
            envoy_dynamic_module_on_http_filter_new = filter_new(
                config: ModuleConfig, envoy: EnvoyFilter) -> ModuleFilter;
            envoy_dynamic_module_on_http_filter_request_headers = request_headers(
                envoy: EnvoyFilter, filter: ModuleFilter, ends: bool) -> RequestHeadersStatus;
            envoy_dynamic_module_on_http_filter_request_body = request_body(
                envoy: EnvoyFilter, filter: ModuleFilter, ends: bool) -> RequestBodyStatus;
            envoy_dynamic_module_on_http_filter_request_trailers = request_trailers(
                envoy: EnvoyFilter, filter: ModuleFilter) -> RequestTrailersStatus;
            envoy_dynamic_module_on_http_filter_response_headers = response_headers(
                envoy: EnvoyFilter, filter: ModuleFilter, ends: bool) -> ResponseHeadersStatus;
            envoy_dynamic_module_on_http_filter_response_body = response_body(
                envoy: EnvoyFilter, filter: ModuleFilter, ends: bool) -> ResponseBodyStatus;
            envoy_dynamic_module_on_http_filter_response_trailers = response_trailers(
                envoy: EnvoyFilter, filter: ModuleFilter) -> ResponseTrailersStatus;
            envoy_dynamic_module_on_http_filter_stream_complete = stream_complete(
                envoy: EnvoyFilter, filter: ModuleFilter) -> ();
            envoy_dynamic_module_on_http_filter_destroy = filter_destroy(
                filter: ModuleFilter) -> ();
            envoy_dynamic_module_on_http_filter_scheduled = filter_scheduled(
                envoy: EnvoyFilter, filter: ModuleFilter, event: u64) -> ();

            // Envoy demands these of every module. This one begins no call of a filter's own.
            envoy_dynamic_module_on_http_filter_http_callout_done = unused_callout_done(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64, result: CalloutResult,
                headers: *mut EnvoyHeader, headers_length: usize,
                chunks: *mut EnvoyBuffer, chunks_length: usize) -> ();
            envoy_dynamic_module_on_http_filter_http_stream_headers = unused_stream_headers(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64,
                headers: *mut EnvoyHeader, headers_length: usize, ends: bool) -> ();
            envoy_dynamic_module_on_http_filter_http_stream_data = unused_stream_data(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64,
                chunks: *const EnvoyBuffer, chunks_length: usize, ends: bool) -> ();
            envoy_dynamic_module_on_http_filter_http_stream_trailers = unused_stream_trailers(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64,
                trailers: *mut EnvoyHeader, trailers_length: usize) -> ();
            envoy_dynamic_module_on_http_filter_http_stream_complete = unused_stream_complete(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64) -> ();
            envoy_dynamic_module_on_http_filter_http_stream_reset = unused_stream_reset(
                envoy: EnvoyFilter, filter: ModuleFilter, id: u64,
                reason: StreamResetReason) -> ();
            envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark
                = unused_above_watermark(envoy: EnvoyFilter, filter: ModuleFilter) -> ();
            envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark
                = unused_below_watermark(envoy: EnvoyFilter, filter: ModuleFilter) -> ();
        }
    };
}
#[allow(unused_imports, reason = "for the functions themselves")]
pub(crate) use for_each_hook;

macro_rules! hook_table {
    ($($symbol:ident = $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        /// The functions that Envoy calls.
        #[allow(dead_code, reason = "for the test against the header")]
        pub(crate) const HOOKS: &[Signature] = &[
            $(Signature {
                name: stringify!($symbol),
                parameters: &[$(stringify!($type)),*],
                result: stringify!($result),
            }),*
        ];
    };
}
for_each_hook!(hook_table);
