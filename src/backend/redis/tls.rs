//! Whom to trust on `rediss://`.

use std::sync::Arc;

use fred::types::config::{TlsConfig, TlsConnector};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::backend::{BackendError, ErrorKind};

/// Where the trusted authorities come from.
#[derive(Clone, Debug, Default)]
pub(super) enum Tls {
    /// Those of the operating system.
    #[default]
    System,
    /// Only those of a PEM file.
    Private(Vec<u8>),
    /// As the user has configured it.
    Config(Arc<ClientConfig>),
}

impl Tls {
    pub(super) fn into_fred(self) -> Result<TlsConfig, BackendError> {
        let roots = match self {
            Self::Config(config) => return Ok(connector((*config).clone())),
            Self::System => system()?,
            Self::Private(pem) => private(&pem)?,
        };
        // Not `ClientConfig::builder()`: it panics where a process has two cryptographic providers and chose none.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| failed("TLS cannot be set up", error))?;
        Ok(connector(config.with_root_certificates(roots).with_no_client_auth()))
    }
}

fn connector(config: ClientConfig) -> TlsConfig {
    TlsConnector::from(config).into()
}

fn system() -> Result<RootCertStore, BackendError> {
    let mut roots = RootCertStore::empty();
    let mut found = rustls_native_certs::load_native_certs();
    // Single certificates that cannot be read are common and harmless while others can.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match found.errors.pop() {
        Some(error) if added == 0 => Err(failed("the certificates of the operating system cannot be read", error)),
        _ => Ok(roots),
    }
}

fn private(pem: &[u8]) -> Result<RootCertStore, BackendError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| failed("the PEM given to tls_ca cannot be read", error))?;
        roots.add(certificate).map_err(|error| failed("a certificate given to tls_ca cannot be used", error))?;
    }
    if roots.is_empty() {
        return Err(BackendError::new(ErrorKind::Config, "the PEM given to tls_ca holds no certificate"));
    }
    Ok(roots)
}

fn failed(message: &str, error: impl std::error::Error + Send + Sync + 'static) -> BackendError {
    BackendError::with_source(ErrorKind::Config, format!("{message}: {error}"), error)
}
