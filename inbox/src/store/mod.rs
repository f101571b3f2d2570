//! The durable store: SQLite in a file, or PostgreSQL. One schema, one set of statements.

mod dialect;
mod open;
mod place;
mod queue;
mod schema;
mod tools;
mod writer;

pub use dialect::Dialect;
pub use open::Store;
pub use place::Place;
pub use queue::{ClaimRequest, Claimed, Claims, Counts, Payload, Release, Settlement};
pub use schema::VERSION;
pub use tools::{Changed, Filter, Listed, Selector, Stats, Try};
pub use writer::{Accepted, NewEvent, Writer};
