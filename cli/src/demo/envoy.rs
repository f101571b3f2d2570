//! The Envoy of the demo.

use callback_guard_harness::envoy_binary;

use super::screen::Screen;

/// Finds the Envoy that will be started, and says which it is.
pub(super) fn find_envoy(screen: &Screen) -> anyhow::Result<()> {
    screen.working("looking for Envoy");
    let binary = envoy_binary::find(&|line| screen.detail(line))?;
    screen.fact(
        "Envoy",
        &format!("{} ({})", binary.version(), binary.found_by()),
    );
    Ok(())
}
