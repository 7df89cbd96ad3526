//! API tokens: the document that has their hashes, and new ones.
//!
//! A token's secret is 256 random bits, so there is nothing to guess and no dictionary to try: one SHA-256 keeps a
//! stolen document useless, and costs a request nothing. A slow hash is for what people make up, and here it would
//! only let strangers keep the server busy.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use chrono::DateTime;
use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{Error, Grant, Names, Role, Scope, digest};

/// What a token starts with, so that those who search for lost secrets know it.
const PREFIX: &str = "lamina_";

/// The tokens that are known, by id.
#[derive(Clone, Debug)]
pub struct Tokens(BTreeMap<String, Token>);

#[derive(Clone, Debug)]
struct Token {
    sha256: [u8; 32],
    grant: Arc<Grant>,
    expires_ms: Option<i64>,
}

/// A token as its document has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sha256: String,
    roles: BTreeSet<Role>,
    views: Option<BTreeSet<String>>,
    datasets: Option<BTreeSet<String>>,
    expires: Option<String>,
}

/// Why a request is not anybody's. What exactly is wrong is not told: that would help to find out what is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is no such token.
    Unknown,
    /// There was one.
    Expired,
}

impl Tokens {
    /// Reads the document: `setting` is it, or the file that it is in.
    pub fn read(setting: &str) -> Result<Self, Error> {
        Self::parse(&Self::document(setting)?)
    }

    /// The document as it is now.
    pub fn document(setting: &str) -> Result<String, Error> {
        if setting.contains(['=', '{', '\n']) {
            return Ok(setting.to_owned());
        }
        std::fs::read_to_string(Path::new(setting)).map_err(|source| Error::Read { path: setting.to_owned(), source })
    }

    /// A document in TOML, or in JSON: one token an entry, by id.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document = |reason: String| Error::Document { reason };
        let lines: BTreeMap<String, Line> = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text).map_err(|error| document(error.to_string()))?,
            false => Figment::from(Toml::string(text)).extract().map_err(|error| {
                // The parser shows the line that is wrong, with what stands in it: that stays here.
                let reason = error.to_string();
                let told: Vec<&str> = reason.lines().filter(|line| !line.contains('|')).collect();
                document(told.join(": "))
            })?,
        };
        if lines.is_empty() {
            return Err(document("there is none, so nobody could be let in".to_owned()));
        }
        lines.into_iter().map(|(id, line)| Ok((id.clone(), Token::of(id, line)?))).collect::<Result<_, _>>().map(Self)
    }

    /// What a token allows at a time, in milliseconds since 1970.
    pub fn grant(&self, presented: &str, now_ms: i64) -> Result<&Arc<Grant>, Denied> {
        let id = presented.strip_prefix(PREFIX).and_then(|rest| rest.rsplit_once('_')).map_or("", |(id, _)| id);
        let token = self.0.get(id).ok_or(Denied::Unknown)?;
        if !bool::from(digest(presented).ct_eq(&token.sha256)) {
            return Err(Denied::Unknown);
        }
        match token.expires_ms {
            Some(expires_ms) if expires_ms <= now_ms => Err(Denied::Expired),
            _ => Ok(&token.grant),
        }
    }
}

impl Token {
    fn of(id: String, line: Line) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Token { id: id.clone(), reason: reason.to_owned() };
        check_id(&id)?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(&line.sha256, &mut sha256)
            .map_err(|_| wrong("its `sha256` is not 64 hexadecimal digits; `lamina token new` writes the line"))?;
        let expires_ms = line.expires.as_deref().map(|expires| match DateTime::parse_from_rfc3339(expires) {
            Ok(expires) => Ok(expires.timestamp_millis()),
            Err(_) => Err(wrong("`expires` is not a time such as `2027-01-31T00:00:00Z`")),
        });
        let grant =
            Grant { scope: scope(&id, &line.roles, line.views, line.datasets)?, token: Some(id), roles: line.roles };
        Ok(Self { sha256, grant: Arc::new(grant), expires_ms: expires_ms.transpose()? })
    }
}

/// A token that names views or datasets reaches those and nothing else; one that names neither, everything.
fn scope(
    id: &str,
    roles: &BTreeSet<Role>,
    views: Option<BTreeSet<String>>,
    datasets: Option<BTreeSet<String>>,
) -> Result<Scope, Error> {
    let wrong = |reason: &str| Error::Token { id: id.to_owned(), reason: reason.to_owned() };
    if roles.is_empty() {
        return Err(wrong("it has no role: give it `ingest`, `query`, `operate` or `admin`"));
    }
    if views.is_none() && datasets.is_none() {
        return Ok(Scope::default());
    }
    if roles.contains(&Role::Admin) {
        return Err(wrong("`admin` reaches everything: leave out `views` and `datasets`, or give it another role"));
    }
    let names = |names: Option<BTreeSet<String>>| match names.unwrap_or_default() {
        names if names.contains("*") => Names::All,
        names => Names::Only(names),
    };
    Ok(Scope { views: names(views), datasets: names(datasets) })
}

fn check_id(id: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match (1..=64).contains(&id.len()) && id.bytes().all(fits) {
        true => Ok(()),
        false => {
            let reason = "its id is not of up to 64 lower-case letters, digits and `-`".to_owned();
            Err(Error::Token { id: id.to_owned(), reason })
        }
    }
}

/// What a new token should be.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its id; a random one unless told.
    pub id: Option<String>,
    /// Its roles.
    pub roles: BTreeSet<Role>,
    /// The views that it reaches.
    pub views: BTreeSet<String>,
    /// The datasets that it reaches. With neither, it reaches everything.
    pub datasets: BTreeSet<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// A new token.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The token itself. It is stored nowhere.
    pub token: String,
    /// Its line for the document.
    pub line: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("line", &self.line).finish_non_exhaustive()
    }
}

/// Makes a token. It can be used once its line is in the document that the server has read.
pub fn issue(request: &Request) -> Result<Issued, Error> {
    let id = match &request.id {
        Some(id) => id.clone(),
        None => random::<4>()?,
    };
    check_id(&id)?;
    let given = |names: &BTreeSet<String>| (!names.is_empty()).then(|| names.clone());
    scope(&id, &request.roles, given(&request.views), given(&request.datasets))?;
    let token = format!("{PREFIX}{id}_{}", random::<32>()?);
    // Every name is quoted as TOML wants it, which for text is as JSON does it.
    let list = |names: Vec<&str>| serde_json::Value::from(names).to_string();
    let mut fields = vec![
        format!("sha256 = \"{}\"", hex::encode(digest(&token))),
        format!("roles = {}", list(request.roles.iter().map(|role| role.name()).collect())),
    ];
    for (field, names) in [("views", &request.views), ("datasets", &request.datasets)] {
        if !names.is_empty() {
            fields.push(format!("{field} = {}", list(names.iter().map(String::as_str).collect())));
        }
    }
    if let Some(expires_ms) = request.expires_ms {
        fields.push(format!("expires = \"{}\"", crate::jobs::rfc3339(expires_ms)));
    }
    Ok(Issued { token, line: format!("{id} = {{ {} }}", fields.join(", ")) })
}

/// Random bytes of the system's, in hexadecimal digits.
fn random<const BYTES: usize>() -> Result<String, Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|source| Error::Random { source })?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(roles: &[Role], views: &[&str], datasets: &[&str]) -> Request {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let roles = roles.iter().copied().collect();
        Request { roles, views: names(views), datasets: names(datasets), ..Request::default() }
    }

    #[test]
    fn a_token_is_known_by_its_line() {
        let until =
            Request { expires_ms: Some(2_000), ..request(&[Role::Query], &["daily_sales", "größe\"\\"], &[]) };
        let (scoped, admin) = (issue(&until).unwrap(), issue(&request(&[Role::Admin], &[], &[])).unwrap());
        assert_ne!(issue(&until).unwrap(), scoped);
        assert!(!format!("{scoped:?}").contains(&scoped.token));
        let tokens = Tokens::parse(&format!("# for tests\n{}\n{}\n", scoped.line, admin.line)).unwrap();
        let grant = tokens.grant(&scoped.token, 1_999).unwrap();
        assert!(grant.has(Role::Query) && !grant.has(Role::Ingest) && !grant.has(Role::Operate));
        assert!(grant.scope.views.allow("daily_sales") && grant.scope.views.allow("größe\"\\"));
        assert!(!grant.scope.views.allow("hourly_sales") && !grant.scope.datasets.allow("sales"));
        assert_eq!(tokens.grant(&scoped.token, 2_000), Err(Denied::Expired));
        let grant = tokens.grant(&admin.token, 0).unwrap();
        assert!(Role::ALL.into_iter().all(|role| grant.has(role)) && grant.scope == Scope::default());
        let (stem, last) = admin.token.split_at(admin.token.len() - 1);
        let changed = format!("{stem}{}", if last == "0" { "1" } else { "0" });
        for wrong in ["", "lamina_", stem, &changed, &admin.line, &format!("{}0", admin.token)] {
            assert_eq!(tokens.grant(wrong, 0), Err(Denied::Unknown), "{wrong}");
        }
    }

    #[test]
    fn documents_are_toml_or_json_in_a_file_or_in_the_setting() {
        let issued = issue(&Request { id: Some("a-1".to_owned()), ..request(&[Role::Ingest], &[], &["*"]) }).unwrap();
        let sha256 = hex::encode(digest(&issued.token));
        let json = format!(r#"{{"a-1": {{"sha256": "{sha256}", "roles": ["ingest"], "datasets": ["*"]}}}}"#);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &issued.line).unwrap();
        for setting in [issued.line.as_str(), &json, file.path().to_str().unwrap()] {
            let tokens = Tokens::read(setting).unwrap();
            let grant = tokens.grant(&issued.token, 0).unwrap();
            assert!(grant.has(Role::Ingest) && grant.scope.datasets == Names::All, "{setting}");
            assert!(!grant.scope.views.allow("daily_sales"));
        }
        assert!(matches!(Tokens::read("/no/such/file"), Err(Error::Read { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_document_is_said() {
        let hash = "0".repeat(64);
        let check = |document: &str, expected: &str| {
            let error = Tokens::parse(document).unwrap_err().to_string();
            assert!(error.contains(expected), "{document}: {error}");
            assert!(!error.contains(&hash[..32]), "{error}");
        };
        check("", "there is none");
        check("a = 1", "invalid type");
        check(r#"a = { roles = ["query"] }"#, "sha256");
        check(r#"a = { sha256 = "12", roles = ["query"] }"#, "64 hexadecimal digits");
        let with = |rest: &str| format!(r#"a = {{ sha256 = "{hash}", {rest} }}"#);
        check(&with(r#"roles = ["root"]"#), "root");
        check(&with("roles = []"), "no role");
        check(&with(r#"roles = ["query"], view = ["v"]"#), "view");
        check(&with(r#"roles = ["admin"], views = ["v"]"#), "reaches everything");
        check(&with(r#"roles = ["query"], expires = "soon""#), "2027-01-31T00:00:00Z");
        check(&with(r#"roles = ["query"]"#).replacen('a', "A_b", 1), "lower-case letters");
        check(&format!("{0}\n{0}", with(r#"roles = ["query"]"#)), "duplicate");
    }
}
