//! Several real Envoys with the guard, before a real Redis and a real Webdis.

mod basics;
mod chaos;
mod compare;
mod deploy;
mod errors;
mod front;
mod load;
mod response;
mod support;
