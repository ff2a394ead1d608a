//! A Redis server behind TLS, with a certificate from a private authority.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::ports::Port;
use super::redis::{RedisBuilder, RedisServer};

/// A server with a TLS port, and a plain one for the test's own commands; killed on drop.
#[derive(Debug)]
pub struct RedisTls {
    server: RedisServer,
    port: Port,
    authority: Authority,
}

impl RedisTls {
    /// Clients need no certificate.
    pub fn start() -> Self {
        Self::start_with(RedisServer::builder())
    }

    /// As [`start`](Self::start), with more configuration.
    pub fn start_with(builder: RedisBuilder) -> Self {
        let authority = Authority::new();
        let port = Port::reserve();
        let server = authority.secure(builder, port.number()).start();
        Self { server, port, authority }
    }

    /// `rediss://[user:password@]127.0.0.1:port`; the certificate is valid for this address and for `localhost`.
    pub fn url(&self) -> String {
        let plain = self.server.url();
        let (start, _) = plain.rsplit_once(':').expect("a URL with a port");
        format!("{}:{}", start.replace("redis://", "rediss://"), self.port.number())
    }

    /// The port that speaks TLS.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The private authority's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.authority.pem
    }

    /// The same as a file.
    pub fn ca_file(&self) -> PathBuf {
        self.authority.path("ca.pem")
    }

    /// The server itself, on its plain port.
    pub fn server(&self) -> &RedisServer {
        &self.server
    }

    pub fn server_mut(&mut self) -> &mut RedisServer {
        &mut self.server
    }
}

/// A certificate authority made for one test, and the certificate of a server on 127.0.0.1 that it signed.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
    pem: String,
}

impl Authority {
    /// # Panics
    /// Where the certificates cannot be made or written.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("gatehouse-tls-").tempdir().expect("a temporary directory");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters without names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "tests of tower-gatehouse");
        let ca = params.self_signed(&key).expect("a certificate of the authority");
        let issuer = Issuer::new(params, key);

        let server_key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = CertificateParams::new(names)
            .and_then(|params| params.signed_by(&server_key, &issuer))
            .expect("a certificate of the server");

        let authority = Self { dir, pem: ca.pem() };
        let files = [("ca.pem", ca.pem()), ("server.pem", server.pem()), ("server.key", server_key.serialize_pem())];
        for (name, content) in files {
            std::fs::write(authority.path(name), content).expect("a file of the certificate");
        }
        authority
    }

    /// With a port that speaks TLS, with this certificate; clients need none.
    pub fn secure(&self, builder: RedisBuilder, port: u16) -> RedisBuilder {
        builder
            .config(format!("tls-port {port}"))
            .config(format!("tls-cert-file {}", self.path("server.pem").display()))
            .config(format!("tls-key-file {}", self.path("server.key").display()))
            .config(format!("tls-ca-cert-file {}", self.path("ca.pem").display()))
            .config("tls-auth-clients no")
    }

    /// The file `ca.pem`, `server.pem` or `server.key`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The authority's certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}
