//! What the program ends with, but for 0: yes.

/// The exit code for an answer that is no: a refused callback, a configuration that is wrong.
pub(crate) const SAID_NO: u8 = 1;

/// The exit code for a question that could not be asked: wrong arguments, a file that is not there.
pub(crate) const USAGE: u8 = 2;
