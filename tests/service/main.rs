//! The whole service, as a front end sees it: a real process, real faces, gRPC.

mod faces;
mod mixup;
mod refusals;
mod requests;
mod server;
mod story;
mod stream;
mod traces;
