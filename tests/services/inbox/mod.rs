//! The inbox on PostgreSQL: one, two and four of them on one database.

mod backup;
mod observe;
#[path = "../../../inbox/tests/old/mod.rs"]
mod old;
mod postgres;
#[path = "../../../inbox/tests/trial/mod.rs"]
mod trial;
mod trials;
