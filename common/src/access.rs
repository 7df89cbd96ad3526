//! Who may do what: roles, scopes, tokens, limits, and the secret that the layers share.
//!
//! It promises that what is compared is compared in constant time, that no secret is stored or shown, and that a grant
//! only ever takes away: a token without a role can do nothing. It does not promise anything about how a token
//! travels; that is [`crate::tls`]'s.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

mod limits;
mod tokens;

pub use limits::Limits;
pub use tokens::{Denied, Issued, Request, Tokens, issue};

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Send events.
    Ingest,
    /// Ask, and see what there is to ask about.
    Query,
    /// Recompute, follow jobs, read metrics.
    Operate,
    /// All of it.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Query, Self::Operate, Self::Admin];

    /// As it is written in a token's document.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("there is no role `{text}`: write `ingest`, `query`, `operate` or `admin`"))
    }
}

/// Names that can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Whatever there is.
    #[default]
    All,
    /// These and no others.
    Only(BTreeSet<String>),
}

impl Names {
    /// Whether `name` is among them.
    pub fn allow(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }
}

/// Which views and datasets a client can reach. What it cannot reach does not exist for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The views.
    pub views: Names,
    /// The datasets, as such: a view can be reached without its dataset.
    pub datasets: Names,
}

/// What a client was found to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token's id; `None` where no tokens are asked for.
    pub token: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<Role>,
    /// What these are over.
    pub scope: Scope,
}

impl Grant {
    /// What everyone is allowed where no tokens are asked for.
    pub fn everything() -> Self {
        Self { token: None, roles: BTreeSet::from([Role::Admin]), scope: Scope::default() }
    }

    /// Whether it has a role, itself or as `admin`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::Admin)
    }
}

/// A secret in the settings: read as text, never shown, and not written either.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// What is shown in a secret's place.
pub const HIDDEN: &str = "***";

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

/// Layers take requests of each other only with the secret that they share.
#[derive(Clone, Debug)]
pub struct Shared(Secret);

impl Shared {
    /// A secret that can be guessed is refused.
    pub fn new(secret: Secret) -> Result<Self, Error> {
        match secret.expose().len() {
            length if length < SHARED_MIN || !secret.expose().bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(Error::Guessable { length })
            }
            _ => Ok(Self(secret)),
        }
    }

    /// What a request carries in its header `authorization`.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0.expose())
    }

    /// Whether a request that carries this in its header `authorization` comes from another layer.
    pub fn admits(&self, authorization: Option<&str>) -> bool {
        authorization.and_then(bearer).is_some_and(|presented| {
            // Of the digests, as these are of one length: how long the comparison takes then says nothing.
            digest(presented).ct_eq(&digest(self.0.expose())).into()
        })
    }
}

/// Letters and digits that a shared secret has at least: `openssl rand -hex 32` gives twice as many.
const SHARED_MIN: usize = 32;

/// The token in a header `authorization`.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Other machines are answered only if they must say who they are, or if that has been waived in so many words.
pub fn may_listen(address: SocketAddr, tokens: bool, insecure: bool) -> Result<(), Error> {
    match address.ip().to_canonical().is_loopback() || tokens || insecure {
        true => Ok(()),
        false => Err(Error::Open { address }),
    }
}

/// What is wrong with how access is set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error(
        "could not listen at `{address}`: everyone who reaches it could read and write everything; set `tokens` \
         (`lamina token new` makes one), or listen at a loopback address, or waive it with `--insecure`"
    )]
    Open { address: SocketAddr },
    #[error(
        "could not listen at `{address}`: everyone who reaches it could read all states; set `secret` alike for all          layers (`openssl rand -hex 32` makes one), or listen at a loopback address, or waive it with `--insecure`"
    )]
    OpenLayer { address: SocketAddr },
    #[error("could not read the tokens in `{path}`: give the setting `tokens` a file, or the document itself")]
    Read { path: String, source: std::io::Error },
    #[error("could not understand the tokens: {reason}; a line looks like `{EXAMPLE}`")]
    Document { reason: String },
    #[error("could not use the token `{id}`: {reason}")]
    Token { id: String, reason: String },
    #[error(
        "could not use the secret that the layers share: it has {length} letters, and needs {SHARED_MIN} or more \
         without spaces; `openssl rand -hex 32` makes one"
    )]
    Guessable { length: usize },
    #[error("could not make a token: the system gives no random bytes")]
    Random { source: getrandom::Error },
}

const EXAMPLE: &str = r#"dashboards = { sha256 = "…", roles = ["query"], views = ["daily_sales"] }"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_tokens_or_a_waiver() {
        let check = |address: &str, tokens: bool, insecure: bool, expected: bool| {
            let allowed = may_listen(address.parse().unwrap(), tokens, insecure);
            assert_eq!(allowed.is_ok(), expected, "{address} {tokens} {insecure}");
        };
        for loopback in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            check(loopback, false, false, true);
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
            check(open, false, false, false);
            check(open, true, false, true);
            check(open, false, true, true);
        }
    }

    #[test]
    fn layers_know_each_other_by_their_secret() {
        let shared = Shared::new(Secret::new("0123456789abcdef0123456789abcdef")).unwrap();
        assert!(shared.admits(Some(&shared.authorization())));
        assert!(shared.admits(Some("bearer 0123456789abcdef0123456789abcdef")));
        for wrong in [None, Some(""), Some("Bearer "), Some("Bearer 0123"), Some("0123456789abcdef0123456789abcdef")] {
            assert!(!shared.admits(wrong), "{wrong:?}");
        }
        assert!(!format!("{shared:?}").contains("0123"));
        for guessable in ["", "hush", "0123456789abcdef 0123456789abcdef"] {
            Shared::new(Secret::new(guessable)).unwrap_err();
        }
    }
}
