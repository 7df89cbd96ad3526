//! What Lamina is held to: an oracle much simpler than the system, workloads, faults, and a sandbox with the real
//! services.

pub mod apart;
pub mod bench;
pub mod differ;
pub mod faults;
pub mod functions;
pub mod memory_log;
pub mod oracle;
pub mod sandbox;
pub mod traffic;
pub mod workload;
pub mod world;
