//! Several real Envoys with the guard, before a real Redis: through a real Webdis, and by connections of the
//! native build's own.

/// Runs each of these tests by both ways to Redis. The build that goes through Webdis is chosen as always, by
/// `CALLBACK_GUARD_FILTER`; connections are the native build's.
macro_rules! both_ways {
    ($($test:ident),* $(,)?) => {
        mod by_webdis {
            use callback_guard_harness::Way;
            $(#[test] fn $test() { super::$test(Way::Front); })*
        }
        #[cfg(target_os = "linux")]
        mod by_connection {
            use callback_guard_harness::Way;
            $(#[test] fn $test() { super::$test(Way::Connection); })*
        }
    };
}

mod basics;
mod chaos;
mod compare;
#[cfg(target_os = "linux")]
mod connection;
mod deploy;
mod docs;
mod errors;
mod front;
mod load;
mod response;
#[cfg(target_os = "linux")]
mod sentinel;
mod support;
