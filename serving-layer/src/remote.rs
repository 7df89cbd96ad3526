//! The other layers as processes of their own: the speed layer over Arrow Flight, the batch layer over HTTP.

mod addresses;
mod batch;
mod connect;
mod speed;
mod workers;

pub use addresses::{Addresses, Unreadable};
pub use batch::RemoteBatch;
pub use connect::Connect;
pub use speed::RemoteSpeed;
