//! The whole service, as a front end sees it: a real process, real faces, gRPC.

mod faces;
mod requests;
mod server;
mod story;
