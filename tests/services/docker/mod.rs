//! Every Dockerfile and Compose file of the repository, on a Docker engine.
//!
//! An engine that is running is taken; where there is none and the tests are root, they start one
//! (`engine.sh`) whose images stay under the build directory. Images that cannot be pulled are made
//! here under the names of the real ones (`images.sh`). Where no engine can be had the tests fail.
//!
//! The ports that the Compose files publish, 10000 and 10001, must be free.

mod engine;
mod image;
mod inbox;
mod redis;
mod single;
