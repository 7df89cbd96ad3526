//! Clients that are none of its own: pages of other sites in somebody's browser, connections that say nothing, bodies
//! that do not end, answers that nobody reads.

mod connections;
mod pages;
mod renewed;
