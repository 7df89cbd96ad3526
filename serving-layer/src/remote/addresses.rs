//! Where workers of the speed layer are: a list, or a name that stands for all of them.

use std::{collections::BTreeSet, str::FromStr};

/// Addresses as they are set: `dns://host:port` for every address of a name, `http://host:port` or `https://…` for one
/// worker, several with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Address>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Name { host: String, port: u16 },
    One(url::Url),
}

/// Why addresses cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{address}` is no address of the speed layer: write `dns://speed-layer.internal:8789`, or \
     `http://127.0.0.1:8789` and more with commas between them"
)]
pub struct Unreadable {
    address: String,
}

impl FromStr for Addresses {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let read = |written: &str| {
            let url = url::Url::parse(written).ok()?;
            let host = url.host_str()?.to_owned();
            match url.scheme() {
                "dns" => Some(Address::Name { host, port: url.port()? }),
                "http" | "https" => Some(Address::One(url)),
                _ => None,
            }
        };
        let unreadable = |written: &str| Unreadable { address: written.to_owned() };
        let all = text.split(',').map(str::trim);
        all.map(|written| read(written).ok_or_else(|| unreadable(written))).collect::<Result<_, _>>().map(Self)
    }
}

/// One worker to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Worker {
    /// Where it is: `host:port`.
    pub(super) authority: String,
    /// The name that its certificate is for.
    pub(super) name: String,
    /// Whether it is asked over TLS.
    pub(super) secure: bool,
}

impl Addresses {
    /// The workers that these stand for now. A name that cannot be resolved stands for none.
    pub(super) async fn resolve(&self, secure: bool) -> BTreeSet<Worker> {
        let mut workers = BTreeSet::new();
        for address in &self.0 {
            match address {
                Address::One(url) => {
                    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { continue };
                    let authority = format!("{host}:{port}");
                    workers.insert(Worker { authority, name: host.to_owned(), secure: url.scheme() == "https" });
                }
                Address::Name { host, port } => match tokio::net::lookup_host((host.as_str(), *port)).await {
                    Ok(found) => workers.extend(found.map(|address| Worker {
                        authority: address.to_string(),
                        name: host.clone(),
                        secure,
                    })),
                    Err(error) => tracing::debug!(host, "no worker of the speed layer: {error}"),
                },
            }
        }
        workers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_name_or_a_list() {
        let check = |text: &str, expected: usize| {
            assert_eq!(text.parse::<Addresses>().map(|addresses| addresses.0.len()).unwrap_or(0), expected, "{text}");
        };
        check("dns://speed.internal:8789", 1);
        check("http://127.0.0.1:8789, https://[::1]:8790", 2);
        for wrong in ["", "127.0.0.1:8789", "dns://speed", "ftp://x:1", "http://a:1,,http://b:1"] {
            check(wrong, 0);
        }
    }
}
