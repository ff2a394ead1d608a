//! The keys of all values: `<namespace>/1/<kind>/<name>`. The 1 is the version of what the values look like: another
//! version of this crate with other values has other keys.

use crate::backend::{LeaseKey, LeaseKind, LimitKey, MapKey, MapOwner, PrimaryKey, Ticket, Variant};

pub(super) struct Names {
    namespace: String,
    buckets: u16,
}

impl Names {
    pub(super) fn new(namespace: &str, buckets: u16) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let namespace = if (1..=64).contains(&namespace.len()) && namespace.bytes().all(plain) {
            namespace.to_owned()
        } else {
            blake3::hash(namespace.as_bytes()).to_hex().to_string()
        };
        Self { namespace, buckets }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    pub(super) fn buckets(&self) -> u16 {
        self.buckets
    }

    pub(super) fn bucket_of(&self, key: &PrimaryKey) -> u16 {
        let [first, second, ..] = *key.as_bytes();
        u16::from_be_bytes([first, second]) % self.buckets
    }

    pub(super) fn number_of_buckets(&self) -> String {
        format!("{}/1/buckets", self.namespace)
    }

    pub(super) fn bucket(&self, number: u16) -> String {
        format!("{}/1/b/{}.{number}", self.namespace, self.buckets)
    }

    pub(super) fn primary(&self, key: &PrimaryKey) -> String {
        format!("{}/1/p/{key}", self.namespace)
    }

    pub(super) fn entry(&self, key: &PrimaryKey, variant: Variant) -> String {
        format!("{}/1/e/{key}{}", self.namespace, suffix(variant))
    }

    pub(super) fn lease(&self, key: &LeaseKey) -> String {
        format!("{}/1/l/{}{}{}", self.namespace, key.key, suffix(key.variant), kind(key.kind))
    }

    pub(super) fn handed_over(&self, key: &LeaseKey, ticket: Ticket) -> String {
        format!("{}/1/h/{}{}{}.{}", self.namespace, key.key, suffix(key.variant), kind(key.kind), ticket.tick)
    }

    pub(super) fn limit(&self, key: &LimitKey) -> String {
        format!("{}/1/n/{key}", self.namespace)
    }

    pub(super) fn home(&self, home: u16) -> String {
        format!("{}/1/s/{home:04x}", self.namespace)
    }

    pub(super) fn map(&self, key: &MapKey) -> String {
        match key.owner {
            MapOwner::Session(owner) => format!("{}/1/m/s{owner}.{}", self.namespace, key.name),
            MapOwner::User(owner) => format!("{}/1/m/u{owner}.{}", self.namespace, key.name),
        }
    }
}

fn suffix(variant: Variant) -> String {
    variant.0.map_or_else(String::new, |variant| format!(".{:016x}", u64::from_be_bytes(variant)))
}

fn kind(kind: LeaseKind) -> &'static str {
    match kind {
        LeaseKind::Fill => "",
        LeaseKind::Revalidate => ".r",
    }
}
