//! The manifests, the image, the metrics, the alerts and the dashboard: held against published
//! schemas, and run by the real programs that they are for.
//!
//! What a test needs and does not find it installs: Debian's packages where it may (as root), and
//! npm packages, pinned, under the build directory.

mod dynamic_modules;
mod image;
mod manifests;
mod metrics;
pub mod programs;
pub mod prometheus;
pub mod release;
mod schemas;
pub mod support;
mod workflows;
