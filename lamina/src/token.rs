//! `lamina token new`: a token, and its line for the document of tokens.

use std::{collections::BTreeSet, io::Write, time::Duration};

use anyhow::{Context, Result};
use common::{
    access::{Request, Role, issue},
    clock::Clock,
};

/// What a new token should be.
#[derive(Clone, Debug, clap::Args)]
pub struct Flags {
    /// What it may do: `ingest`, `query`, `operate`, `admin`; several are allowed.
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// A view that it reaches; `*` for all. With neither views nor datasets, it reaches everything.
    #[arg(long = "view", value_name = "VIEW")]
    pub views: Vec<String>,
    /// A dataset that it reaches; `*` for all.
    #[arg(long = "dataset", value_name = "DATASET")]
    pub datasets: Vec<String>,
    /// What it is called in logs and limits; something random unless told.
    #[arg(long)]
    pub id: Option<String>,
    /// How long it is good for, such as `90days`; for ever unless told.
    #[arg(long, value_parser = humantime_serde::re::humantime::parse_duration, value_name = "TIME")]
    pub expires_in: Option<Duration>,
}

/// Makes a token: its line goes to `lines`, and the token itself, which is kept nowhere, to `secret`.
pub fn new(flags: &Flags, clock: &dyn Clock, lines: &mut impl Write, secret: &mut impl Write) -> Result<()> {
    let names = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    let expires_ms = flags.expires_in.map(|time| {
        let ms = i64::try_from(time.as_millis()).ok();
        ms.and_then(|ms| ms.checked_add(clock.now_ms())).context("could not reckon when the token expires")
    });
    let issued = issue(&Request {
        id: flags.id.clone(),
        roles: flags.roles.iter().copied().collect(),
        views: names(&flags.views),
        datasets: names(&flags.datasets),
        expires_ms: expires_ms.transpose()?,
    })?;
    writeln!(lines, "{}", issued.line)?;
    writeln!(secret, "The token, shown this once (its line is for the file that the setting `tokens` names):")?;
    writeln!(secret, "{}", issued.token)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use common::{access::Tokens, clock::System};

    use super::*;

    #[test]
    fn what_is_printed_can_be_used() {
        let flags = Flags {
            roles: vec![Role::Query],
            views: vec!["daily_sales".to_owned()],
            datasets: Vec::new(),
            id: None,
            expires_in: Some(Duration::from_secs(60)),
        };
        let (mut lines, mut secret) = (Vec::new(), Vec::new());
        new(&flags, &System, &mut lines, &mut secret).unwrap();
        let (lines, secret) = (String::from_utf8(lines).unwrap(), String::from_utf8(secret).unwrap());
        let token = secret.lines().last().unwrap();
        assert!(!lines.contains(token));
        let tokens = Tokens::parse(&lines).unwrap();
        assert!(tokens.grant(token, System.now_ms()).unwrap().has(Role::Query));
        tokens.grant(token, System.now_ms() + 61_000).unwrap_err();
    }
}
