//! TLS: certificates and keys from the settings, for servers and for what the layers ask of each other.
//!
//! Certificates, keys and authorities are PEM, each as a file's path or as the text itself. A server takes new ones up
//! while it runs; as a client it shows and trusts those that it was started with.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};

use crate::access::Secret;

/// What a server shows and whom it trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The certificate and those that lead to its authority, in PEM: a path or the text. With it comes TLS.
    pub certificate: Option<String>,
    /// Its key, in PEM: a path or the text.
    pub key: Option<Secret>,
    /// Authorities, in PEM: a path or the text. A server then takes only clients with a certificate of theirs.
    pub client_ca: Option<String>,
    /// Authorities, in PEM: a path or the text. The other layers' certificates must be of theirs; with it they are
    /// asked over TLS.
    pub ca: Option<String>,
}

/// Whom a client trusts and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientSettings {
    /// Authorities, in PEM: a path or the text. A server's certificate must be of theirs.
    pub ca: Option<String>,
    /// The certificate to show where a server asks for one.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<Secret>,
}

/// HTTP/2 where both can, else HTTP/1.1.
pub const HTTP: &[&[u8]] = &[b"h2", b"http/1.1"];
/// HTTP/2 only, as gRPC wants it.
pub const HTTP2: &[&[u8]] = &[b"h2"];

impl Settings {
    /// A server's side, or `None` where no certificate is set. `protocols` are offered in their order.
    pub fn server(&self, protocols: &[&[u8]]) -> Result<Option<Arc<ServerConfig>>, Error> {
        let (certificate, key) = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) if self.client_ca.is_none() => return Ok(None),
            (None, _) => return Err(Error::Missing { what: "certificate" }),
            (Some(_), None) => return Err(Error::Missing { what: "key" }),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Unusable { what: "protocol versions", source: source.into() })?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(roots("client_ca", authorities)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
                let verifier =
                    verifier.map_err(|source| Error::Unusable { what: "client_ca", source: source.into() })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates("certificate", certificate)?, private_key(key)?)
            .map_err(|source| Error::Unusable { what: "certificate", source: source.into() })?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Some(Arc::new(config)))
    }
}

impl Settings {
    /// All that a server's side is made of, as it is now.
    pub fn material(&self) -> Result<Vec<Vec<u8>>, Error> {
        let key = self.key.as_ref().map(Secret::expose);
        let given =
            [("certificate", self.certificate.as_deref()), ("key", key), ("client_ca", self.client_ca.as_deref())];
        given.into_iter().filter_map(|(what, setting)| Some(material(what, setting?))).collect()
    }
}

/// What is in the file that a setting names, or the setting itself.
fn material(what: &'static str, setting: &str) -> Result<Vec<u8>, Error> {
    match std::fs::read(Path::new(setting)) {
        Ok(text) => Ok(text),
        Err(_) if setting.contains("-----BEGIN") || what == "key" => Ok(setting.as_bytes().to_vec()),
        Err(source) => Err(Error::Read { what, path: setting.to_owned(), source }),
    }
}

impl Settings {
    /// How other layers are asked: as `ca` says, with this one's own certificate where they want to see one.
    pub fn client(&self, protocols: &[&[u8]]) -> Result<Option<ClientConfig>, Error> {
        let both = self.ca.is_some() && self.certificate.is_some() && self.key.is_some();
        let settings = ClientSettings {
            ca: self.ca.clone(),
            certificate: self.certificate.clone().filter(|_| both),
            key: self.key.clone().filter(|_| both),
        };
        settings.client(protocols)
    }
}

impl ClientSettings {
    /// A client's side, or `None` where no authority is set.
    pub fn client(&self, protocols: &[&[u8]]) -> Result<Option<ClientConfig>, Error> {
        let Some(authorities) = &self.ca else {
            return match self.certificate.is_some() || self.key.is_some() {
                true => Err(Error::Missing { what: "ca" }),
                false => Ok(None),
            };
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Unusable { what: "protocol versions", source: source.into() })?
            .with_root_certificates(roots("ca", authorities)?);
        let mut config = match (&self.certificate, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => builder
                .with_client_auth_cert(certificates("certificate", certificate)?, private_key(key)?)
                .map_err(|source| Error::Unusable { what: "certificate", source: source.into() })?,
            (None, Some(_)) => return Err(Error::Missing { what: "certificate" }),
            (Some(_), None) => return Err(Error::Missing { what: "key" }),
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Some(config))
    }
}

/// Named here, as more than one is compiled in and none is everybody's.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a setting holds: the text, or what is in the file that it names.
pub fn pem(what: &'static str, setting: &str) -> Result<Vec<u8>, Error> {
    if setting.contains("-----BEGIN") {
        return Ok(setting.as_bytes().to_vec());
    }
    std::fs::read(Path::new(setting)).map_err(|source| Error::Read { what, path: setting.to_owned(), source })
}

fn certificates(what: &'static str, setting: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = pem(what, setting)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(Error::Empty { what }),
        Ok(certificates) => Ok(certificates),
        Err(source) => Err(Error::Unusable { what, source: source.to_string().into() }),
    }
}

fn private_key(setting: &Secret) -> Result<PrivateKeyDer<'static>, Error> {
    let text = match setting.expose() {
        // Not by `pem`, as a key that lost its first line would be shown as a path.
        path if path.contains('\n') && !path.contains("-----BEGIN") => return Err(Error::Empty { what: "key" }),
        setting => pem("key", setting)?,
    };
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|source| Error::Unusable { what: "key", source: source.to_string().into() })
}

fn roots(what: &'static str, setting: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, setting)? {
        roots.add(certificate).map_err(|source| Error::Unusable { what, source: source.into() })?;
    }
    Ok(roots)
}

/// What is wrong with how TLS is set up.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what each field is")]
pub enum Error {
    #[error(
        "could not set up TLS: the setting `{what}` is missing; a certificate, its key and an authority go together"
    )]
    Missing { what: &'static str },
    #[error("could not read the TLS setting `{what}` from `{path}`: give it a PEM file, or the text itself")]
    Read { what: &'static str, path: String, source: std::io::Error },
    #[error("could not use the TLS setting `{what}`: there is nothing of the kind in it; PEM is expected")]
    Empty { what: &'static str },
    #[error("could not use the TLS setting `{what}`")]
    Unusable { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        let some = |text: &str| Some(text.to_owned());
        let check = |settings: Settings, expected: &str| {
            let error = crate::fault::chain(&settings.server(HTTP).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hush"), "{error}");
        };
        assert!(Settings::default().server(HTTP).unwrap().is_none());
        assert!(ClientSettings::default().client(HTTP).unwrap().is_none());
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (certificate, key) = (issued.cert.pem(), issued.signing_key.serialize_pem());
        let secret = |text: &str| Some(Secret::new(text));
        let whole =
            Settings { certificate: some(&certificate), key: secret(&key), client_ca: some(&certificate), ca: None };
        assert_eq!(whole.server(HTTP).unwrap().unwrap().alpn_protocols, HTTP);
        assert!(!format!("{whole:?}").contains("PRIVATE"));
        check(Settings { certificate: None, ..whole.clone() }, "`certificate` is missing");
        check(Settings { key: None, ..whole.clone() }, "`key` is missing");
        check(Settings { certificate: some("/no/such/file"), ..whole.clone() }, "/no/such/file");
        check(Settings { certificate: some(&key), ..whole.clone() }, "nothing of the kind");
        check(Settings { key: secret("hush\nhush"), ..whole.clone() }, "nothing of the kind");
        check(Settings { key: secret(&certificate), ..whole.clone() }, "`key`");
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        check(Settings { key: secret(&other.signing_key.serialize_pem()), ..whole }, "`certificate`");
    }
}
