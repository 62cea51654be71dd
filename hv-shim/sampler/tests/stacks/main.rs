//! What is captured for finding callers, on memory made by hand.

mod calls;
mod captures;
mod cpu;
mod model;
mod walks;
